"""The soak: a steady load for long, and whether any process grows.

    make soak MINUTES=20 JSON=PATH

First it is measured how many jobs a second the platform can do with an engine that takes little
time; then seven tenths of that are sent. What grows after the warm-up is a leak, and ends the
command with status 1: memory of our own processes, descriptors of any, connections to Postgres.
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
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import create_engine, text

from benchmarks.chaos.documents import Fate, Submission
from benchmarks.chaos.load import Clients
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

ALLOWED_MB_AN_HOUR = 1.0
SEEN_MB = 1.0
"""Growth below this is noise in a short soak: allocators take memory by the megabyte."""
ALLOWED_DESCRIPTORS = 2.0
ALLOWED_CONNECTIONS = 2.0

SERVERS = ("postgres", "valkey", "seaweedfs")
"""Not ours: they cache what they hold, and more is held as the soak goes on."""

SETTINGS = {"OCTAVO_FAKE_SLOTS": "8", "OCTAVO_FAKE_DELAY_SECONDS": "0.05"}

_COUNT_ENDED = text("SELECT count(*) FROM jobs WHERE status = 'succeeded'")


@dataclass(frozen=True)
class Row:
    """One process, after the warm-up."""

    process: str
    resident_mb: float
    resident_mb_an_hour: float
    proportional_mb: float
    proportional_mb_an_hour: float
    descriptors: float
    descriptors_an_hour: float
    leaks: bool


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
    rows = _rows(samples, after=began + WARM_UP * seconds)
    connections = trend(samples.connections, after=began + WARM_UP * seconds)
    leaks = [row.process for row in rows if row.leaks]
    if connections and connections.growth > ALLOWED_CONNECTIONS:
        leaks.append("connections to postgres")
    print(_table(rows, connections))
    print(f"\n{done:.1f} jobs a second over {seconds / 60:.0f} minutes; leaks: {leaks or 'none'}")
    if arguments.json:
        facts = {
            "minutes": arguments.minutes,
            "capacity_jobs_per_s": round(capacity, 2),
            "done_jobs_per_s": round(done, 2),
            "processes": [asdict(row) for row in rows],
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


def _rows(samples: Samples, *, after: float) -> list[Row]:
    rows = [_row(samples, name, after=after) for name in sorted(samples.resident)]
    return [row for row in rows if row is not None]


def _row(samples: Samples, name: str, *, after: float) -> Row | None:
    resident = trend(samples.resident[name], after=after)
    proportional = trend(samples.proportional[name], after=after)
    descriptors = trend(samples.descriptors[name], after=after)
    if resident is None or proportional is None or descriptors is None:
        return None
    is_ours = name.partition(":")[0] not in SERVERS and not name.endswith(": children")
    grows = resident.an_hour > ALLOWED_MB_AN_HOUR and resident.growth > SEEN_MB
    opens = descriptors.an_hour > 0 and descriptors.growth > ALLOWED_DESCRIPTORS
    return Row(
        process=name,
        resident_mb=round(resident.last, 1),
        resident_mb_an_hour=round(resident.an_hour, 2),
        proportional_mb=round(proportional.last, 1),
        proportional_mb_an_hour=round(proportional.an_hour, 2),
        descriptors=round(descriptors.last),
        descriptors_an_hour=round(descriptors.an_hour, 1),
        leaks=is_ours and (grows or opens),
    )


def _table(rows: list[Row], connections: Trend | None) -> str:
    lines = [
        "| process | RSS MB | MB/h | PSS MB | MB/h | descriptors | an hour | leaks |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {row.process} | {row.resident_mb} | {row.resident_mb_an_hour:+} "
            f"| {row.proportional_mb} | {row.proportional_mb_an_hour:+} "
            f"| {row.descriptors} | {row.descriptors_an_hour:+} | {'yes' if row.leaks else ''} |"
            for row in rows
        ),
    ]
    if connections:
        lines.append(
            f"| connections to postgres | | | | | {connections.last:.0f} "
            f"| {connections.an_hour:+.1f} | |"
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A steady load for long: does anything grow?")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
