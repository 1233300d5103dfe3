"""What goes wrong in a campaign, and when: the schedule of a seed."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.chaos.proxy import Mode


class Kind(StrEnum):
    """A kind of fault: what is done, to what."""

    KILL_ENGINE_WORKER = "kill -9 engine worker"
    KILL_ENGINE = "kill -9 engine"
    KILL_CPU_WORKER = "kill -9 cpu worker"
    KILL_RENDERER = "kill -9 renderer"
    KILL_ZYGOTE = "kill -9 zygote"
    KILL_DISPATCHER = "kill -9 dispatcher"
    KILL_SWEEPER = "kill -9 sweeper"
    KILL_GATEWAY = "kill -9 gateway"
    FREEZE_ENGINE_WORKER = "freeze engine worker"
    FREEZE_CPU_WORKER = "freeze cpu worker"
    FREEZE_ENGINE = "freeze engine"
    FREEZE_DISPATCHER = "freeze dispatcher"
    DRAIN_ENGINE_WORKER = "drain engine worker"
    DRAIN_CPU_WORKER = "drain cpu worker"
    FLUSH_VALKEY = "flush valkey"
    KILL_VALKEY = "kill -9 valkey"
    FREEZE_VALKEY = "freeze valkey"
    RESTART_POSTGRES = "restart postgres"
    KILL_STORE = "kill -9 store"
    STORE_GONE = "store gone"
    STORE_ERRORS = "store answers 503"
    STORE_SLOW = "store slow"
    STORE_RESET = "store resets"
    STORE_CUT = "store cuts answers"
    STORE_SILENT = "store silent"


OFTEN = (Kind.KILL_ENGINE_WORKER, Kind.FREEZE_ENGINE_WORKER, Kind.FLUSH_VALKEY)
"""Twice as often as the others."""

MODES = {
    Kind.STORE_GONE: Mode.GONE,
    Kind.STORE_ERRORS: Mode.ERRORS,
    Kind.STORE_SLOW: Mode.SLOW,
    Kind.STORE_RESET: Mode.RESET,
    Kind.STORE_CUT: Mode.CUT,
    Kind.STORE_SILENT: Mode.SILENT,
}
"""What the proxy before the store does."""

FREEZES = (
    Kind.FREEZE_ENGINE_WORKER,
    Kind.FREEZE_CPU_WORKER,
    Kind.FREEZE_ENGINE,
    Kind.FREEZE_DISPATCHER,
)
"""Longer than a lease, so that whoever wakes up has lost what it held."""

SLOWS_RECOVERY = frozenset(
    {
        Kind.KILL_DISPATCHER,
        Kind.KILL_SWEEPER,
        Kind.FREEZE_DISPATCHER,
        Kind.FLUSH_VALKEY,
        Kind.KILL_VALKEY,
        Kind.FREEZE_VALKEY,
        Kind.RESTART_POSTGRES,
        # A frozen or dead worker takes messages with it, and there is one CPU worker.
        Kind.FREEZE_ENGINE_WORKER,
        Kind.FREEZE_CPU_WORKER,
        Kind.FREEZE_ENGINE,
        # Slots that wait for the store claim nothing.
        *MODES,
        Kind.KILL_STORE,
    }
)
"""What the way back of a dead worker's work leads through, so that it takes longer meanwhile."""

SHORTEST_SECONDS, LONGEST_SECONDS = 2.0, 5.0
"""For how long a server misbehaves."""

SECONDS_A_FAULT = 2.3
"""From one fault to the next; many last longer than that."""

SPARE_SHARE = 0.1
"""Some find no victim: no renderer may live just then."""

QUIET_SHARE = 0.12
"""Of all faults, so many come last and one at a time."""

QUIET_KINDS = (Kind.KILL_ENGINE_WORKER, Kind.KILL_ENGINE_WORKER, Kind.KILL_CPU_WORKER)
"""Kills after which nothing else happens until the work went on: they show how long that takes."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at `at` seconds of the campaign, for `seconds`."""

    kind: Kind
    at: float
    seconds: float  # 0 where it happens at once
    draw: int  # which of several victims
    is_quiet: bool = False  # nothing else goes wrong meanwhile


def schedule(seed: int, count: int, *, lease_seconds: float, rest_seconds: float) -> list[Fault]:
    """`count` faults of all kinds, and some to spare: most in no order and over one another, the last ones quiet.

    A quiet one has `rest_seconds` for itself; the first comes so long after the end of all others.
    """
    chance = random.Random(f"faults of {seed}")
    quiet = round(QUIET_SHARE * count)
    kinds = _mixed(count - quiet + math.ceil(SPARE_SHARE * count), chance)
    others = [
        Fault(
            kind=kind,
            at=SECONDS_A_FAULT * (number + chance.random()),
            seconds=_duration(kind, lease_seconds, chance),
            draw=chance.randrange(1_000),
        )
        for number, kind in enumerate(kinds)
    ]
    begin = seconds_of(others, rest_seconds=rest_seconds)
    return [*others, *quiet_kills(quiet, begin=begin, rest_seconds=rest_seconds)]


def quiet_kills(count: int, *, begin: float, rest_seconds: float) -> list[Fault]:
    """Kills of workers, one after the other."""
    kinds = itertools.islice(itertools.cycle(QUIET_KINDS), count)
    return [
        Fault(kind, at=begin + rest_seconds * number, seconds=0, draw=number, is_quiet=True)
        for number, kind in enumerate(kinds)
    ]


def seconds_of(faults: Sequence[Fault], *, rest_seconds: float) -> float:
    """How long a schedule takes."""
    return max((fault.at + fault.seconds for fault in faults), default=0) + rest_seconds


def _mixed(count: int, chance: random.Random) -> list[Kind]:
    kinds: list[Kind] = []
    while len(kinds) < count:
        round_of_all = [*Kind, *OFTEN]
        chance.shuffle(round_of_all)
        kinds += round_of_all
    return kinds[:count]


def _duration(kind: Kind, lease_seconds: float, chance: random.Random) -> float:
    if kind in FREEZES:
        return lease_seconds + chance.uniform(2, 4)
    if kind in MODES or kind is Kind.FREEZE_VALKEY:
        return chance.uniform(SHORTEST_SECONDS, LONGEST_SECONDS)
    return 0
