"""What a process holds: its memory, apart from what it shares, and its open descriptors.

Where processes share a segment, as those of Postgres do, the resident size of each grows with every
page of it that the process ever touched, though nothing is allocated: the segment was, once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import psutil

GONE = (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError)
"""What looking at a process raises that has ended."""

KB_A_MB = 1024


class Process(NamedTuple):
    """One process: what it and all of its kind are called, and its id."""

    name: str
    pid: int


@dataclass(frozen=True)
class Held:
    """Memory in MB, and descriptors, of one process or of several together.

    `own` is anonymous memory, swapped or not: the heap, the stacks, and what was written to of pages
    that were mapped or that came with the fork. It is what a leak makes larger, and what is free
    again when the process ends. `shared` is its part of shared segments; the parts of all that share
    one add up to what of it is in memory. `opened` tells descriptors apart: a number that was closed
    and is used again is another one.
    """

    processes: float = 0.0
    own: float = 0.0
    shared: float = 0.0
    resident: float = 0.0
    proportional: float = 0.0
    opened: frozenset[int] = frozenset()

    @property
    def descriptors(self) -> float:
        """How many are open."""
        return float(len(self.opened))

    @classmethod
    def by(cls, process: psutil.Process) -> Self:
        """What the process holds now; raises one of GONE."""
        mb = _mapped_mb(process.pid)
        return cls(
            processes=1.0,
            own=mb["Anonymous"] + mb["Swap"],
            shared=mb["Pss_Shmem"],
            resident=mb["Rss"],
            proportional=mb["Pss"],
            opened=_opened(process.pid),
        )

    def __add__(self, other: Held) -> Held:
        summed = {what: getattr(self, what) + getattr(other, what) for what in MEMORY}
        return Held(
            processes=self.processes + other.processes,
            opened=self.opened | other.opened,
            **summed,
        )


MEMORY = ("own", "shared", "resident", "proportional")
HELD = ("processes", *MEMORY, "descriptors")


def _mapped_mb(pid: int) -> dict[str, float]:
    _, *lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    named = (line.split(":") for line in lines)
    return {name: int(size.removesuffix("kB")) / KB_A_MB for name, size in named}


def _opened(pid: int) -> frozenset[int]:
    found = set[int]()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            found.add(hash((pid, descriptor.name, str(descriptor.readlink()))))
    return frozenset(found)
