"""How a process is, told in a file: for whoever starts it and cannot ask it over HTTP.

The file is written again every second or so. One that has grown old is a process that hangs.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

STALE_SECONDS = 15.0
WRITE_SECONDS = 1.0


@dataclass(frozen=True)
class Health:
    """What is wrong with a process, if anything: it should be started again, or left alone."""

    dead: Sequence[str] = ()
    unready: Sequence[str] = ()

    @property
    def is_live(self) -> bool:
        """Whether it need not be started again."""
        return not self.dead

    @property
    def is_ready(self) -> bool:
        """Whether it can do its work now."""
        return not (self.dead or self.unready)


class HealthFile:
    """The file that one process writes."""

    def __init__(self, path: str) -> None:
        """`path` may be empty: then nothing is written."""
        self._path = Path(path) if path else None
        self._last: Health | None = None
        self._due = 0.0

    def write(self, health: Health) -> None:
        """Write it, unless the same was written a moment ago."""
        if self._path is None or (health == self._last and time.monotonic() < self._due):
            return
        self._last, self._due = health, time.monotonic() + WRITE_SECONDS
        fresh = self._path.with_name(f"{self._path.name}.new")
        try:
            fresh.write_text(json.dumps({"pid": os.getpid(), **asdict(health)}))
            fresh.replace(self._path)
        except OSError:
            return  # a full disk: the file grows old, and that will be seen


def read(path: Path) -> Health:
    """What a process last wrote; it is dead where that was long ago, or never."""
    try:
        said = json.loads(path.read_text())
        seconds = time.time() - path.stat().st_mtime
    except (OSError, ValueError) as error:
        return Health(dead=[f"there is no health in {path}: {error}"])
    if seconds > STALE_SECONDS:
        return Health(dead=[f"nothing was heard of process {said['pid']} for {seconds:.0f} s"])
    return Health(dead=said["dead"], unready=said["unready"])
