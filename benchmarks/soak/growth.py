"""Which processes grow: each that lasted by itself, and how many there are of those that do not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.soak.held import HELD, Held, Process
from benchmarks.soak.slopes import Series, Trend, trend

ALLOWED_MB_AN_HOUR = 5.0
OURS_MB_AN_HOUR = 1.0
SEEN_MB = 1.0
"""Growth below this is noise in a short soak: allocators take memory by the megabyte."""
ALLOWED_DESCRIPTORS = 2.0
KEPT_OPEN_SECONDS = 360.0
"""Closed within this, a descriptor is not kept: a checkpoint of Postgres takes up to five minutes."""
ALLOWED_PROCESSES = 2.0

SERVERS = ("postgres", "valkey", "seaweedfs")
"""Not ours: what is resident of their programs, files and segments is not judged."""

Moments = Sequence[tuple[float, Held]]
"""Seconds on the monotonic clock, and what was held."""
Sampled = Mapping[Process, Moments]


@dataclass(frozen=True)
class Growth:
    """How one process grew that was there all the time after the warm-up."""

    process: str
    pid: int
    own_mb: float
    own_mb_an_hour: float
    resident_mb_an_hour: float
    leaks: bool


@dataclass(frozen=True)
class Row:
    """How all processes of one name grew together.

    `fastest_mb_an_hour` is by what the own memory of one of them grew, the one that grew fastest;
    None where none lasted.
    """

    process: str
    processes: int
    own_mb: float
    own_mb_an_hour: float
    fastest_mb_an_hour: float | None
    resident_mb: float
    resident_mb_an_hour: float
    proportional_mb: float
    proportional_mb_an_hour: float
    descriptors: int
    descriptors_an_hour: float
    leaks: bool


@dataclass(frozen=True)
class Segment:
    """How much is in memory of what a server's processes share, counted once.

    Postgres takes its segment when it starts, and never more: page by page it comes to be used.
    """

    server: str
    resident_mb: float
    resident_mb_an_hour: float


def growths(sampled: Sampled, *, after: float) -> list[Growth]:
    """Those of the processes that lasted from the end of the warm-up to that of the samples."""
    looks = [moment for moments in sampled.values() for moment, _ in moments if moment >= after]
    if not looks:
        return []
    first, last = min(looks), max(looks)
    lasting = {
        process: moments
        for process, moments in sampled.items()
        if moments[0][0] <= first and moments[-1][0] >= last
    }
    found = (_growth(process, moments, after) for process, moments in sorted(lasting.items()))
    return [growth for growth in found if growth is not None]


def rows(sampled: Sampled, *, after: float) -> list[Row]:
    """A row for each name.

    A process that comes and goes gives back at its end what it had: of those the number is judged.
    Of descriptors it is the most that one of the name keeps open: a session of Postgres that is used
    for the first time opens the files that others of its kind have open.
    """
    lasting = defaultdict[str, list[Growth]](list)
    for growth in growths(sampled, after=after):
        lasting[growth.process].append(growth)
    names = sorted({process.name for process in sampled})
    found = (_row(name, sampled, lasting[name], after) for name in names)
    return [row for row in found if row is not None]


def segments(sampled: Sampled, *, after: float) -> list[Segment]:
    """The shared memory of each server that has any."""
    together = {server: _together(sampled, server, with_children=True) for server in SERVERS}
    trends = {server: _trends(moments, after) for server, moments in together.items()}
    return [
        Segment(server, round(of["shared"].last, 1), round(of["shared"].an_hour, 2))
        for server, of in trends.items()
        if of and of["shared"].last > 0
    ]


def _growth(process: Process, moments: Moments, after: float) -> Growth | None:
    of = _trends(moments, after)
    if not of:
        return None
    own, resident = of["own"], of["resident"]
    if _owner(process.name) in SERVERS:
        grows = _exceeds(own, ALLOWED_MB_AN_HOUR)
    else:
        grows = _exceeds(own, OURS_MB_AN_HOUR) or _exceeds(resident, OURS_MB_AN_HOUR)
    return Growth(
        process=process.name,
        pid=process.pid,
        own_mb=round(own.last, 1),
        own_mb_an_hour=round(own.an_hour, 2),
        resident_mb_an_hour=round(resident.an_hour, 2),
        leaks=grows,
    )


def _row(name: str, sampled: Sampled, lasting: list[Growth], after: float) -> Row | None:
    of = _trends(_together(sampled, name), after)
    kept = [trend(_kept(sampled, name, after, how), after=after) for how in (_fewest, _same)]
    if not of or None in kept:
        return None
    multiplies = _multiplies(of["processes"], ALLOWED_PROCESSES)
    opens = all(each and _multiplies(each, ALLOWED_DESCRIPTORS) for each in kept)
    return Row(
        process=name,
        processes=round(of["processes"].last),
        own_mb=round(of["own"].last, 1),
        own_mb_an_hour=round(of["own"].an_hour, 2),
        fastest_mb_an_hour=max((each.own_mb_an_hour for each in lasting), default=None),
        resident_mb=round(of["resident"].last, 1),
        resident_mb_an_hour=round(of["resident"].an_hour, 2),
        proportional_mb=round(of["proportional"].last, 1),
        proportional_mb_an_hour=round(of["proportional"].an_hour, 2),
        descriptors=round(of["descriptors"].last),
        descriptors_an_hour=round(of["descriptors"].an_hour, 1),
        leaks=multiplies or opens or any(each.leaks for each in lasting),
    )


def _exceeds(memory: Trend, mb_an_hour: float) -> bool:
    return memory.an_hour > mb_an_hour and memory.growth > SEEN_MB


def _multiplies(number: Trend, allowed: float) -> bool:
    return number.an_hour > 0 and number.growth > allowed


def _owner(name: str) -> str:
    return name.partition(":")[0]


def _together(sampled: Sampled, name: str, *, with_children: bool = False) -> Moments:
    """What all processes of the name held at each moment."""
    sums = defaultdict[float, Held](Held)
    for process, moments in sampled.items():
        if process.name == name or (with_children and _owner(process.name) == name):
            for moment, held in moments:
                sums[moment] += held
    return sorted(sums.items(), key=lambda look: look[0])


def _kept(
    sampled: Sampled, name: str, after: float, how: Callable[[Sequence[Held]], int]
) -> Series:
    """The most descriptors that one process of the name had kept open at each moment.

    A leak shows in both: in the fewest that were open at a time, and in those that were the same.
    A server's number goes up and down with those who ask at once, whose connections are closed when
    they are idle; a session of Postgres closes files and opens them again, and its number stays.
    """
    most = defaultdict[float, float](float)
    for process, moments in sampled.items():
        if process.name == name:
            for moment, _ in moments:
                if moment >= after:
                    since = moment - KEPT_OPEN_SECONDS
                    looks = [held for then, held in moments if since <= then <= moment]
                    most[moment] = max(most[moment], float(how(looks)))
    return sorted(most.items())


def _fewest(looks: Sequence[Held]) -> int:
    return min(len(held.opened) for held in looks)


def _same(looks: Sequence[Held]) -> int:
    return len(frozenset.intersection(*(held.opened for held in looks)))


def _trends(moments: Moments, after: float) -> dict[str, Trend]:
    """The trend of each thing that is held; empty where there is too little to tell."""
    found = {
        what: trend([(moment, getattr(held, what)) for moment, held in moments], after=after)
        for what in HELD
    }
    return {what: of for what, of in found.items() if of is not None}
