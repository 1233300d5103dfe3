"""What the doctor finds of one part: whether it is well, and if not, how to mend it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How it is."""

    WELL = "well"
    UNKNOWN = "unknown"  # it could not be looked at, because of something else that is wrong
    WARNING = "warning"  # it works, and may cease to
    FAILURE = "failure"  # something does not work


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    part: str
    level: Level
    said: str
    mend: str = ""


def well(part: str, said: str) -> Finding:
    """Nothing to do."""
    return Finding(part, Level.WELL, said)


def unknown(part: str, said: str) -> Finding:
    """Mend the rest first."""
    return Finding(part, Level.UNKNOWN, said)


def warning(part: str, said: str, *, mend: str) -> Finding:
    """Worth a look."""
    return Finding(part, Level.WARNING, said, mend)


def failure(part: str, said: str, *, mend: str) -> Finding:
    """To be mended."""
    return Finding(part, Level.FAILURE, said, mend)
