"""`octavo demo`: a platform of its own reads the sample documents, and is gone again."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from client.lines import progress_of
from client.models import Job
from client.progress import Row, shown
from client.sdk import Octavo
from client.side_by_side import Stage, side_by_side
from client.terminal import clean
from deploy.interrupts import give_up, interrupts
from deploy.local import Platform
from deploy.supervisor import Failure

SAMPLES = Path(__file__).parent / "samples"
SUFFIXES = {".pdf", ".jpg", ".png", ".tiff"}


@dataclass
class Reading:
    """One sample on its way through the platform."""

    document: Path
    row: Row
    job: Job | None = None
    text: str = ""
    seconds: float = 0.0
    first_page_seconds: float = 0.0


@click.command()
@click.option("--dir", "parent", default=Path("var"), type=click.Path(path_type=Path), hidden=True)
def demo(parent: Path) -> None:
    """Start a platform, read the sample documents with it, show their text, and stop it."""
    console = Console(highlight=False, emoji=False, markup=False)
    began = time.monotonic()
    try:
        with _platform(parent) as platform:
            started = time.monotonic() - began
            console.print(f"The platform is up ({started:.1f} s): {platform.url}")
            readings = _read_all(platform)
            _show(console, readings)
            stopping = time.monotonic()
    except Failure as error:
        raise click.ClickException(str(error)) from error
    except KeyboardInterrupt:
        raise click.ClickException("interrupted; everything is stopped") from None
    now = time.monotonic()
    console.print(f"Stopped in {now - stopping:.1f} s; {now - began:.1f} s in all.")
    if any(reading.job is None or reading.job.status != "succeeded" for reading in readings):
        raise SystemExit(1)


@contextmanager
def _platform(parent: Path) -> Iterator[Platform]:
    """A platform with an engine a core, in a folder that goes with it.

    An interrupt leaves what is done with it at once, but neither its start nor its end, which
    would leave processes behind.
    """
    parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="demo-", dir=parent) as directory:
        platform = Platform(Path(directory), engine_workers=os.cpu_count() or 1)
        with interrupts(platform.interrupt), platform:
            if platform.is_stopping:
                give_up()
            with interrupts(give_up):
                yield platform


def _read_all(platform: Platform) -> list[Reading]:
    """Every sample with what was read of it, in order of their names."""
    documents = sorted(path for path in SAMPLES.iterdir() if path.suffix in SUFFIXES)
    with Octavo(platform.url, platform.api_key) as octavo, shown() as rows:
        readings = [Reading(document, rows.add(document.name)) for document in documents]
        stage: Stage[Reading] = Stage(partial(_read, octavo), at_once=len(readings))
        for reading, error in side_by_side(readings, [stage]):
            reading.row.ends()
            if error is not None:
                raise error
    return readings


def _read(octavo: Octavo, reading: Reading) -> None:
    began = time.monotonic()
    job = octavo.submit(reading.document)
    for job in octavo.watch(job.id):  # noqa: B020 - the job as it is by now
        reading.job = job
        reading.row.shows(job)
        if job.pages.succeeded and not reading.first_page_seconds:
            reading.first_page_seconds = time.monotonic() - began
    reading.seconds = time.monotonic() - began
    if job.status == "succeeded":
        reading.text = octavo.result(job.id)


def _show(console: Console, readings: list[Reading]) -> None:
    for reading in readings:
        console.rule(reading.document.name)
        console.print(clean(reading.text).strip(), soft_wrap=True)
    console.rule()
    console.print(_table(readings), soft_wrap=True)


def _table(readings: list[Reading]) -> Table:
    table = Table("document", "outcome", "pages", "first page", "all pages", box=None)
    for reading in readings:
        assert reading.job is not None
        table.add_row(
            reading.document.name,
            progress_of(reading.job),
            str(reading.job.pages.total),
            f"{reading.first_page_seconds:.1f} s",
            f"{reading.seconds:.1f} s",
        )
    return table
