"""What the soak calls a leak, and what it measures by."""

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from benchmarks.soak import growth, samples
from benchmarks.soak.growth import Moments, Row, Sampled
from benchmarks.soak.held import GONE, Held, Process
from benchmarks.soak.slopes import HOUR, trend

MINUTES = 20
WARM_UP = 300.0


def test_a_trend_is_that_of_the_time_after_the_warm_up() -> None:
    warm_up = [(float(second), 10.0 * second) for second in range(100)]
    flat = [(float(second), 1_000.0) for second in range(100, 400)]

    found = trend(warm_up + flat, after=100)

    assert found is not None
    assert (found.an_hour, found.growth) == (0, 0)


def test_a_leak_is_seen_through_outliers() -> None:
    leak = [(5.0 * n, 100 + n / 60 + (50 if n % 17 == 0 else 0)) for n in range(400)]

    found = trend(leak, after=0)

    assert found is not None
    assert found.an_hour == pytest.approx(12, rel=0.05)


def test_too_little_has_no_trend() -> None:
    assert trend([(1.0, 1.0)] * 5, after=0) is None


def moments(held: Callable[[float], Held], *, until: float = 60 * MINUTES) -> Moments:
    """What was held every five seconds, by the hours that had gone by."""
    return [(float(second), held(second / HOUR)) for second in range(0, int(until), 5)]


def growing(mb_an_hour: float) -> Moments:
    return moments(lambda hours: Held(1, own=100 + mb_an_hour * hours, resident=200))


def first(number: float) -> frozenset[int]:
    """So many open descriptors, always the same ones."""
    return frozenset(range(int(number)))


def opening(at_hours: float) -> Moments:
    return moments(lambda hours: Held(1, own=3, opened=first(40 if hours >= at_hours else 10)))


def the_row(sampled: Sampled, name: str) -> Row:
    [row] = [row for row in growth.rows(sampled, after=WARM_UP) if row.process == name]
    return row


@pytest.mark.parametrize(
    ("name", "mb_an_hour", "leaks"),
    [
        ("gateway", 10.0, True),
        ("gateway", 4.5, True),  # of ours no more is allowed than can be told from noise
        ("gateway", 0.5, False),
        ("seaweedfs", 10.0, True),
        ("seaweedfs", 4.5, False),
        ("postgres: sessions of octavo_worker", 10.0, True),
    ],
)
def test_memory_of_its_own_that_grows_is_a_leak_whosever_it_is(
    name: str, mb_an_hour: float, *, leaks: bool
) -> None:
    row = the_row({Process(name, 1): growing(mb_an_hour)}, name)

    assert row.own_mb_an_hour == pytest.approx(mb_an_hour)
    assert row.leaks == leaks


def test_one_that_grows_is_found_among_many_that_do_not() -> None:
    name = "postgres: sessions of octavo_gateway"
    many = {Process(name, pid): growing(12 if pid == 20 else 0) for pid in range(21)}

    row = the_row(many, name)

    assert row.fastest_mb_an_hour == pytest.approx(12)
    assert row.leaks
    leaking = [each.pid for each in growth.growths(many, after=WARM_UP) if each.leaks]
    assert leaking == [20]


def test_pages_of_a_shared_segment_that_come_to_be_used_are_nobodys_leak() -> None:
    touching = moments(lambda hours: Held(1, own=3, shared=60 * hours, resident=20 + 500 * hours))
    sampled = {Process("postgres: checkpointer", pid): touching for pid in (1, 2)}

    row = the_row(sampled, "postgres: checkpointer")
    [segment] = growth.segments(sampled, after=WARM_UP)

    assert row.resident_mb_an_hour == pytest.approx(1000)
    assert not row.leaks
    assert segment.server == "postgres"
    assert segment.resident_mb_an_hour == pytest.approx(120)


def test_what_is_resident_of_ours_is_judged_too() -> None:
    mapping = moments(lambda hours: Held(1, own=3, resident=100 + 10 * hours))

    assert the_row({Process("sweeper", 1): mapping}, "sweeper").leaks


def test_descriptors_of_any_process_that_stay_open_are_a_leak() -> None:
    keeping = moments(lambda hours: Held(1, own=3, opened=first(20 + 30 * hours)))

    assert the_row({Process("valkey", 1): keeping}, "valkey").leaks


def test_descriptors_that_are_closed_every_few_minutes_are_none() -> None:
    name = "postgres: checkpointer"
    sawtooth = moments(lambda hours: Held(1, own=1, opened=first(8 + int(HOUR * hours) % 300)))

    assert not the_row({Process(name, 1): sawtooth}, name).leaks


def test_connections_that_are_others_every_few_minutes_are_none() -> None:
    def held(hours: float) -> Held:
        minute = int(60 * hours)
        return Held(1, own=3, opened=first(20) | {1_000 * minute + n for n in range(2 * minute)})

    assert not the_row({Process("seaweedfs", 1): moments(held)}, "seaweedfs").leaks


def test_files_that_are_closed_and_opened_again_are_none() -> None:
    name = "postgres: sessions of octavo_dispatcher"

    def held(hours: float) -> Held:
        minute = int(
            60 * hours
        )  # in which each is opened anew, one after the other for the last time
        others = {1_000 * (1 + min(minute, 6 + n)) + n for n in range(10)}
        return Held(1, own=3, opened=first(20) | others)

    assert not the_row({Process(name, 1): moments(held)}, name).leaks


def test_a_session_that_opens_what_others_have_open_leaks_nothing() -> None:
    name = "postgres: sessions of octavo_gateway"
    sampled = {
        Process(name, pid): opening(at_hours) for pid, at_hours in enumerate((0, 0.09, 0.16))
    }

    assert not the_row(sampled, name).leaks


def test_those_that_come_and_go_have_no_growth_of_their_own() -> None:
    brief = {Process("cpu-worker: children", pid): growing(99)[100:150] for pid in range(9)}

    [lasting] = growth.growths({**brief, Process("gateway", 99): growing(0)}, after=WARM_UP)
    assert lasting.pid == 99


def test_processes_that_become_more_and_more_are_a_leak() -> None:
    piling_up = {
        Process("cpu-worker: children", number): [
            look for look in moments(lambda _: Held(1, own=1)) if look[0] >= 60 * number
        ]
        for number in range(MINUTES)
    }

    assert the_row(piling_up, "cpu-worker: children").leaks


def test_a_process_holds_what_it_wrote_and_not_what_it_shares() -> None:
    mb = 8
    before = Held.by(psutil.Process())
    private = mmap.mmap(-1, mb << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with private, mmap.mmap(-1, mb << 20) as shared:
        for mapped in (private, shared):
            mapped.write(bytes(mb << 20))
        after = Held.by(psutil.Process())

    assert after.own - before.own == pytest.approx(mb, abs=2)
    assert after.shared - before.shared == pytest.approx(mb, abs=1)
    assert after.resident - before.resident >= 2 * mb - 1


def test_a_descriptor_that_is_closed_and_used_again_is_another_one() -> None:
    def opened() -> frozenset[int]:
        return Held.by(psutil.Process()).opened

    with Path("/proc/self/status").open():
        before = opened()
    with Path("/proc/self/stat").open():
        after = opened()

    assert len(before) == len(after)
    assert before != after


def test_one_that_ended_holds_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        zombie = psutil.Process(child.pid)
        while zombie.status() != psutil.STATUS_ZOMBIE:
            pass

        with pytest.raises(GONE):
            Held.by(zombie)


def test_what_ended_while_it_was_looked_at_was_never_there(monkeypatch: pytest.MonkeyPatch) -> None:
    platform: Any = SimpleNamespace(
        pids=lambda: {"worker": os.getpid()},
        servers=SimpleNamespace(database="postgresql+psycopg2://127.0.0.1:1/octavo"),
    )
    monkeypatch.setattr(samples, "Held", SimpleNamespace(by=_ended))
    looked = samples.Samples(platform, every_seconds=0.01)

    with looked.taken():
        time.sleep(0.1)

    assert looked.held == {}


def _ended(process: psutil.Process) -> Held:
    raise psutil.NoSuchProcess(process.pid)
