"""The machine itself: disk, clock, the engines that run here, and the walls around the renderer."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2

from deploy.doctor import database
from deploy.doctor.finding import Finding, failure, unknown, warning, well
from shared.config import Settings
from shared.errors import EngineUnavailable
from worker.engine.host import EngineHost
from worker.pipeline import layers

LEAST_FREE_BYTES = 1024**3
LEAST_FREE_SHARE = 0.1
CLOCK_SECONDS = 5
ENGINE_SECONDS = 120


def check_disk(directories: Iterable[Path]) -> Iterator[Finding]:
    """Space for documents on their way, and for the servers' data where they are here."""
    for directory in dict.fromkeys([Path(tempfile.gettempdir()), *directories]):
        space = shutil.disk_usage(directory)
        said = f"{space.free / 1024**3:.1f} GiB free in {directory}"
        if space.free < LEAST_FREE_BYTES:
            yield failure("disk", said, mend="make space, or move it: uploads will fail")
        elif space.free < LEAST_FREE_SHARE * space.total:
            yield warning("disk", said, mend="make space while there is some")
        else:
            yield well("disk", said)


def check_clock(settings: Settings) -> Iterator[Finding]:
    """Leases count by the database's clock alone; deadlines and logs read better by one clock."""
    try:
        with closing(database.connect(settings)) as opened:
            [[theirs]] = database.ask(
                opened, "SELECT extract(epoch FROM clock_timestamp())::float8"
            )
    except psycopg2.Error:
        yield unknown("clock", "the database cannot be asked")
        return
    skew = abs(time.time() - float(str(theirs)))
    said = f"{skew:.1f} s from the database's"
    if skew > CLOCK_SECONDS:
        yield warning("clock", said, mend="set both clocks by NTP")
    else:
        yield well("clock", said)


def check_engines(settings: Settings) -> Iterator[Finding]:
    """Each engine starts here and reads its golden page right."""
    for name in settings.engines:
        part = f"engine {name}"
        try:
            host = EngineHost(
                name,
                page_seconds=settings.page_seconds,
                stall_seconds=settings.stall_seconds,
                max_recognition_bytes=settings.max_recognition_bytes,
                start_seconds=ENGINE_SECONDS,
            )
            host.start()
        except EngineUnavailable as error:
            said = " ".join(str(error).split())[-300:]
            mend = f"on a machine that is to read: pip install 'octavo[{name}]'; see what it says"
            yield warning(part, f"does not start here: {said}", mend=mend)
        else:
            yield well(part, f"{host.model} reads its golden page")
            host.stop()


def check_sandbox() -> Iterator[Finding]:
    """Which walls stand around the process that opens documents."""
    try:
        found = layers.active()
    except OSError as error:
        mend = "documents cannot be opened here: ARCHITECTURE.md, Documents are hostile"
        yield failure("sandbox", f"no child process can be had: {error}", mend=mend)
        return
    standing = ", ".join(name for name, layer in found.items() if layer.active)
    missing = [f"{name} ({layer.detail})" for name, layer in found.items() if not layer.active]
    if missing:
        mend = "let the kernel or the container allow them: ARCHITECTURE.md, Documents are hostile"
        yield warning("sandbox", f"without {', '.join(missing)}; {standing}", mend=mend)
    else:
        yield well("sandbox", standing)
