"""Two drills that a campaign leaves to chance: how soon work goes on, and that zombies change nothing.

    make drills KILLS=100 WRITES=100 JSON=PATH

A *kill* ends a worker that holds work, with nothing else going wrong, and waits until somebody has
all of that work. A *zombie* is an engine worker that is stopped while it holds pages, for so long
that others have read them, and then woken: it has results in its hands, and tries to write them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import Engine, create_engine, text

from benchmarks.chaos import faults, invariants
from benchmarks.chaos.campaign import (
    BOUND_SECONDS,
    REST_SECONDS,
    SETTINGS,
    await_rest,
    platform_of,
)
from benchmarks.chaos.documents import Fate, Submission
from benchmarks.chaos.injector import Injector
from benchmarks.chaos.journal import Journal
from benchmarks.chaos.load import Clients
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.recovery import Watch
from deploy.local import Platform

PAGES = 8
JOBS_A_SECOND = 4.0
ZOMBIE_SETTINGS = {**SETTINGS, "OCTAVO_FAKE_SLOTS": "32", "OCTAVO_FAKE_DELAY_SECONDS": "1.5"}
ZOMBIE_JOBS_A_SECOND = 4.0
LOOK_SECONDS = 0.1
AWAKE_SECONDS = 2.0
"""In which a zombie writes what it has."""

_HELD = text("SELECT count(*) FROM work WHERE status = 'running' AND worker LIKE :worker")


def main() -> None:
    """Do both, print, and end with 1 where something was not refused, or too late."""
    arguments = _arguments()
    facts: dict[str, Any] = {"recovery_bound_s": BOUND_SECONDS}
    broken: list[str] = []
    if arguments.kills:
        facts |= _drill_kills(arguments.kills, broken)
    if arguments.writes:
        facts |= _drill_zombies(arguments.writes, broken)
    for name, value in facts.items():
        print(f"| {name} | {value} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(facts | {"broken": broken}, indent=2) + "\n")
    for words in broken:
        print(f"BROKEN: {words}")
    sys.exit(1 if broken else 0)


def _drill_kills(kills: int, broken: list[str]) -> dict[str, Any]:
    """The times from that many kills to the next claim of what the worker held."""
    with _platform(SETTINGS) as (platform, proxy):
        watch = Watch(platform.servers.database)
        watch.start()
        injector = Injector(platform, proxy, on_kill=watch.killed)
        with _steady_load(platform, JOBS_A_SECOND) as acknowledged:
            injector.run(faults.quiet_kills(kills, begin=3, rest_seconds=REST_SECONDS + 1))
        await_rest(platform, _say)
        watch.stop()
        broken += _broken_rows(platform, acknowledged)
    seconds = sorted(each.seconds for each in watch.recovered)
    late = [each for each in seconds if each > BOUND_SECONDS]
    if late:
        broken.append(f"{len(late)} recoveries took longer than {BOUND_SECONDS:.2f} s: {late}")
    return {
        "kills": len(injector.happened),
        "kills_of_holders": len(seconds),
        "recovery_p50_s": round(seconds[len(seconds) // 2], 3) if seconds else None,
        "recovery_max_s": round(max(seconds), 3) if seconds else None,
    }


def _drill_zombies(writes: int, broken: list[str]) -> dict[str, Any]:
    """That many late writes, forced; how many were refused, and how many were not."""
    rounds = 0
    with _platform(ZOMBIE_SETTINGS) as (platform, _):
        engine = create_engine(platform.servers.database, isolation_level="AUTOCOMMIT")
        with _steady_load(platform, ZOMBIE_JOBS_A_SECOND) as acknowledged:
            while _refused(platform) < writes and rounds < writes:
                rounds += 1
                _make_zombie(platform, engine, number=rounds)
                _say(f"round {rounds}: {_refused(platform)} late writes refused")
        await_rest(platform, _say)
        broken += _broken_rows(platform, acknowledged)
        with engine.connect() as connection:
            zombies = Journal(platform.logs).zombies(connection)
    if zombies < writes:
        broken.append(f"only {zombies} late writes of zombies were refused, not {writes}")
    return {"freezes": rounds, "zombie_writes_refused": zombies}


def _make_zombie(platform: Platform, engine: Engine, *, number: int) -> None:
    """Stop an engine worker that holds pages until others have them, and wake it."""
    names = sorted(name for name in platform.pids() if name.startswith("engine-worker"))
    process = psutil.Process(platform.pids()[names[number % len(names)]])
    mine = {"worker": f"%:{process.pid}:%"}
    with engine.connect() as connection:
        while not connection.execute(_HELD, mine).scalar_one():
            time.sleep(LOOK_SECONDS)
        process.suspend()
        try:
            while connection.execute(_HELD, mine).scalar_one():
                time.sleep(LOOK_SECONDS)
        finally:
            process.resume()
    time.sleep(AWAKE_SECONDS)


def _refused(platform: Platform) -> int:
    return len(Journal(platform.logs).late)


def _broken_rows(platform: Platform, clients: Clients) -> Iterator[str]:
    engine = create_engine(platform.servers.database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for breach in invariants.breaches(connection, clients.sent.acknowledged):
            yield f"{breach.says}: {breach.count}"


@contextmanager
def _platform(settings: dict[str, str]) -> Iterator[tuple[Platform, Proxy]]:
    with (
        tempfile.TemporaryDirectory(prefix="octavo-drill-") as directory,
        platform_of(Path(directory), settings, lambda _: None) as both,
    ):
        yield both


@contextmanager
def _steady_load(platform: Platform, jobs_a_second: float) -> Iterator[Clients]:
    """Documents of good pages, one after the other, while the block runs."""
    clients = Clients(platform.urls, platform.api_key)
    ended = threading.Event()
    sending = threading.Thread(
        target=lambda: asyncio.run(clients.keep_sending(_good(), jobs_a_second, ended))
    )
    sending.start()
    try:
        yield clients
    finally:
        ended.set()
        sending.join()


def _good() -> Iterator[Submission]:
    number = 0
    while True:
        number += 1
        yield Submission(
            number=number,
            key=f"drill-{number}",
            faults=(None,) * PAGES,
            is_pdf=False,
            fate=Fate.KEPT,
            patience_seconds=0,
            is_batch=False,
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="How soon work goes on; that zombies are refused.")
    parser.add_argument("--kills", type=int, default=100, help="of workers that hold work")
    parser.add_argument("--writes", type=int, default=100, help="of zombies, at least")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
