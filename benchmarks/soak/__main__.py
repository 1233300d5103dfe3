"""The soak: a steady load for long, and whether any process grows.

    make soak MINUTES=20 JSON=PATH

The store's buffers are filled, and it is measured how many jobs a second the platform can do with an
engine that takes little time; then seven tenths of that are sent. What grows after the warm-up is a
leak, and ends the command with status 1: memory or descriptors of any process, ours or a server's,
the number of processes, connections to Postgres.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from sqlalchemy import create_engine, text

from benchmarks.chaos.documents import Fate, Submission
from benchmarks.chaos.load import Clients
from benchmarks.soak.filling import fill
from benchmarks.soak.growth import Row, Segment, growths, rows, segments
from benchmarks.soak.samples import Samples
from benchmarks.soak.slopes import Trend, trend
from deploy.local import Platform

SHARE = 0.7
WARM_UP = 0.3
"""Of the time: pools fill, caches are filled, allocators find their size."""
CALIBRATION_SECONDS = 30.0
AT_ONCE = 10
"""Jobs in progress during the calibration: more than the workers hold."""
EVERY_SECONDS = 5.0

ALLOWED_CONNECTIONS = 2.0

SETTINGS = {"OCTAVO_FAKE_SLOTS": "8", "OCTAVO_FAKE_DELAY_SECONDS": "0.05"}

COLUMNS = (
    *("process", "of them", "own MB", "MB/h", "fastest, MB/h"),
    *("RSS MB", "MB/h", "PSS MB", "MB/h", "descriptors", "an hour", "leaks"),
)

_COUNT_ENDED = text("SELECT count(*) FROM jobs WHERE status = 'succeeded'")


def main() -> None:
    """Calibrate, soak, print, and write what was asked for."""
    arguments = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="octavo-soak-") as directory,
        Platform(
            Path(directory),
            engine="fake",
            engine_workers=max(1, (os.cpu_count() or 2) // 2),
            gateways=2,
            settings=SETTINGS,
        ) as platform,
    ):
        fill(platform)
        capacity = _calibrate(platform)
        _say(f"{capacity:.1f} jobs a second can be done; {SHARE * capacity:.1f} are sent")
        samples = Samples(platform, every_seconds=EVERY_SECONDS)
        began, before = time.monotonic(), _ended(platform)
        rate = SHARE * capacity
        with (
            samples.taken(),
            _sending(platform, lambda them, end: them.keep_sending(_documents(), rate, end)),
        ):
            time.sleep(60 * arguments.minutes)
        seconds = time.monotonic() - began
        done = (_ended(platform) - before) / seconds
    after = began + WARM_UP * seconds
    found, shared = rows(samples.held, after=after), segments(samples.held, after=after)
    connections = trend(samples.connections, after=after)
    leaks = [row.process for row in found if row.leaks]
    if connections and connections.growth > ALLOWED_CONNECTIONS:
        leaks.append("connections to postgres")
    print(_table(found, shared, connections))
    print(f"\n{done:.1f} jobs a second over {seconds / 60:.0f} minutes; leaks: {leaks or 'none'}")
    if arguments.json:
        facts = {
            "minutes": arguments.minutes,
            "capacity_jobs_per_s": round(capacity, 2),
            "done_jobs_per_s": round(done, 2),
            "processes": [asdict(row) for row in found],
            "each": [asdict(growth) for growth in growths(samples.held, after=after)],
            "segments": [asdict(segment) for segment in shared],
            "connections": asdict(connections) if connections else None,
            "leaks": leaks,
        }
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    sys.exit(1 if leaks else 0)


def _calibrate(platform: Platform) -> float:
    """Jobs a second where there is always one that waits."""
    with _sending(platform, lambda clients, ended: clients.keep_busy(_documents(), AT_ONCE, ended)):
        time.sleep(CALIBRATION_SECONDS / 3)
        began, before = time.monotonic(), _ended(platform)
        time.sleep(CALIBRATION_SECONDS * 2 / 3)
        return (_ended(platform) - before) / (time.monotonic() - began)


def _ended(platform: Platform) -> int:
    engine = create_engine(platform.servers.database)
    try:
        with engine.connect() as connection:
            return int(connection.execute(_COUNT_ENDED).scalar_one())
    finally:
        engine.dispose()


@contextmanager
def _sending(
    platform: Platform, send: Callable[[Clients, threading.Event], Coroutine[None, None, None]]
) -> Iterator[None]:
    """Clients that send while the block runs."""
    clients, ended = Clients(platform.urls, platform.api_key), threading.Event()
    sending = threading.Thread(target=lambda: asyncio.run(send(clients, ended)))
    sending.start()
    try:
        yield
    finally:
        ended.set()
        sending.join()


def _documents() -> Iterator[Submission]:
    number = int(time.time() * 1000)  # keys of the calibration are not those of the soak
    while True:
        number += 1
        yield Submission(
            number=number,
            key=f"soak-{number}",
            faults=(None,) * 4,
            is_pdf=number % 2 == 0,
            fate=Fate.DELETED if number % 20 == 0 else Fate.KEPT,
            patience_seconds=5,
            is_batch=False,
        )


def _table(found: list[Row], shared: list[Segment], connections: Trend | None) -> str:
    lines = [
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *(
            f"| {row.process} | {row.processes} | {row.own_mb} | {row.own_mb_an_hour:+} "
            f"| {_signed(row.fastest_mb_an_hour)} "
            f"| {row.resident_mb} | {row.resident_mb_an_hour:+} "
            f"| {row.proportional_mb} | {row.proportional_mb_an_hour:+} "
            f"| {row.descriptors} | {row.descriptors_an_hour:+} | {'yes' if row.leaks else ''} |"
            for row in found
        ),
        *(
            f"| {segment.server}: shared segment | | | | | {segment.resident_mb} "
            f"| {segment.resident_mb_an_hour:+} | | | | | |"
            for segment in shared
        ),
    ]
    if connections:
        lines.append(
            f"| connections to postgres | {connections.last:.0f} | | | | | | | | "
            f"| {connections.an_hour:+.1f} | |"
        )
    return "\n".join(lines)


def _signed(number: float | None) -> str:
    return "" if number is None else f"{number:+}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A steady load for long: does anything grow?")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
