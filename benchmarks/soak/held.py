"""What a process holds: its memory, apart from what it shares, and its open descriptors.

Where processes share a segment, as those of Postgres do, the resident size of each grows with every
page of it that the process ever touched, though nothing is allocated: the segment was, once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
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
    one add up to what of it is in memory.
    """

    processes: float = 0.0
    own: float = 0.0
    shared: float = 0.0
    resident: float = 0.0
    proportional: float = 0.0
    descriptors: float = 0.0

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
            descriptors=float(process.num_fds()),
        )

    def __add__(self, other: Held) -> Held:
        return Held(*(getattr(self, what) + getattr(other, what) for what in HELD))


HELD = tuple(field.name for field in fields(Held))


def _mapped_mb(pid: int) -> dict[str, float]:
    _, *lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    named = (line.split(":") for line in lines)
    return {name: int(size.removesuffix("kB")) / KB_A_MB for name, size in named}
