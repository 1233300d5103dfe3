"""What an outage of each server costs: how submissions are answered, and when all work is done.

    make outages                     # or: make outages JSON=outages.json ARGS="--seconds 10"

Real servers, two gateways, two workers with the fake engine, and short timers. Submissions come at
a steady rate before, during and after each outage; then it is counted.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg2

from benchmarks.load import Load, failures, percentile, rows, seconds_until_done
from deploy.local import Platform

PER_SECOND = 4
WARM_SECONDS = 2.0
CALM_SECONDS = 25.0  # so that the 99th of a hundred submissions is none of the first
AFTER_SECONDS = 6.0
DONE_SECONDS = 60.0
"""Within this of a server's return, every job has to end."""
RECOVERY_SECONDS = 5.0
"""Within this of its return, submissions have to be taken again."""

SETTINGS = {
    "OCTAVO_LEASE_SECONDS": "4",
    "OCTAVO_HEARTBEAT_SECONDS": "1",
    "OCTAVO_SWEEP_SECONDS": "0.5",
    "OCTAVO_RESEND_SECONDS": "3",
    "OCTAVO_FAKE_DELAY_SECONDS": "0.02",
    "OCTAVO_FAKE_SLOTS": "4",
}


@dataclass(frozen=True)
class Outage:
    """What one outage cost. Seconds; `statuses` are those of all submissions, 0 a broken one."""

    name: str
    seconds: float
    statuses: dict[int, int]
    without_retry_after: int
    p99_before: float
    p99_during: float
    slowest: float
    recovered_after: float
    moved_after: float
    """Until the first job ended; the rest is the backlog."""
    done_after: float
    failures: int
    """Counted while it lasted: failed attempts, pages and jobs."""


Away = Callable[[Platform], AbstractContextManager[None]]


def killed(server: str) -> Away:
    """A server that is gone."""
    return lambda platform: platform.outage(server)


def frozen(server: str) -> Away:
    """A server that keeps its connections and says nothing."""
    return lambda platform: platform.outage(server, signal.SIGSTOP)


def aborted(server: str) -> Away:
    """A Postgres that is shut down at once, and its clients with it."""
    return lambda platform: platform.outage(server, signal.SIGQUIT)


@contextmanager
def locked(platform: Platform) -> Iterator[None]:
    """A lock in the way of every request and every worker."""
    url = platform.environment["OCTAVO_DATABASE_URL"].replace("+psycopg2", "")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        yield


OUTAGES: dict[str, Away] = {
    "valkey frozen": frozen("valkey"),
    "valkey gone": killed("valkey"),
    "store gone": killed("seaweedfs"),
    "store frozen": frozen("seaweedfs"),
    "postgres aborted": aborted("postgres"),
    "postgres frozen": frozen("postgres"),
    "tables locked": locked,
}


def measure(platform: Platform, name: str, seconds: float) -> Outage:
    """Take a server away for so long, under load, and see what that does."""
    seconds_until_done(platform, at_most=DONE_SECONDS)
    failed = failures(platform)
    with Load(platform, per_second=PER_SECOND) as load:
        time.sleep(WARM_SECONDS)
        warm = time.monotonic()
        time.sleep(CALM_SECONDS)
        began = time.monotonic()
        with OUTAGES[name](platform):
            time.sleep(seconds)
        back = time.monotonic()
        [(back_at,)] = rows(platform, "SELECT now()::text")
        time.sleep(AFTER_SECONDS)
    # From the server's return on, what was submitted after it included.
    seconds_until_done(platform, at_most=3 * DONE_SECONDS)
    done = time.monotonic() - back
    refused = [answer for answer in load.answers if answer.status != 202]  # noqa: PLR2004 - Accepted
    late = [answer.began + answer.seconds for answer in refused if answer.began > began]
    return Outage(
        name=name,
        seconds=round(back - began, 1),
        statuses=dict(sorted(load.statuses().items())),
        without_retry_after=sum(answer.retry_after is None for answer in refused),
        p99_before=percentile(load.between(warm, began), 0.99),
        p99_during=percentile(load.between(began, back), 0.99),
        slowest=max(answer.seconds for answer in load.answers),
        recovered_after=max(0.0, *(at - back for at in late)) if late else 0.0,
        moved_after=_moved_after(platform, back_at),
        done_after=done,
        failures=failures(platform) - failed,
    )


def complaints(found: Outage) -> list[str]:
    """In what an outage cost more than it may."""
    wrong = {
        "answers other than 202 and 503": found.statuses.keys() - {202, 503},
        "503 without Retry-After": found.without_retry_after,
        "failures were counted": found.failures,
        "submissions were not taken soon enough": found.recovered_after > RECOVERY_SECONDS,
        "jobs were not done soon enough": found.done_after > DONE_SECONDS,
        "an outage of the broker reached submissions": found.name.startswith("valkey")
        and (found.statuses.keys() != {202} or found.p99_during > found.p99_before + 0.05),
    }
    return [what for what, is_so in wrong.items() if is_so]


def _moved_after(platform: Platform, moment: str) -> float:
    query = f"""
        SELECT extract(epoch FROM min(finished_at) - '{moment}')::float8 FROM jobs
        WHERE finished_at > '{moment}'
    """  # noqa: S608 - the database's own words
    [(seconds,)] = rows(platform, query)
    return float(seconds)


HEADINGS = (
    "outage",
    "seconds",
    "answers",
    "p99 before, during",
    "slowest",
    "taken again, work moved, all done after",
    "failures",
)


def table(found: list[Outage]) -> str:
    """The figures as a table in markdown."""
    lines = [HEADINGS, ["---"] * len(HEADINGS), *map(_row, found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(found: Outage) -> list[str]:
    return [
        found.name,
        f"{found.seconds:.0f}",
        ", ".join(f"{count} of {status}" for status, count in found.statuses.items()),
        f"{1000 * found.p99_before:.0f}, {1000 * found.p99_during:.0f} ms",
        f"{found.slowest:.1f} s",
        f"{found.recovered_after:.1f}, {found.moved_after:.1f}, {found.done_after:.1f} s",
        str(found.failures),
    ]


def main() -> None:
    """Measure, print, write what was asked for; ends with 1 where an outage cost too much."""
    parser = argparse.ArgumentParser(description="What an outage of each server costs.")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--seconds", type=float, default=60, help="how long each outage lasts")
    parser.add_argument("--only", choices=OUTAGES, action="append", help="not all of them")
    arguments = parser.parse_args()
    found, wrong = [], []
    with (
        tempfile.TemporaryDirectory(prefix="octavo-outages-") as directory,
        Platform(
            Path(directory), engine="fake", engine_workers=2, gateways=2, settings=SETTINGS
        ) as platform,
    ):
        for name in arguments.only or OUTAGES:
            print(f"{name} ...", file=sys.stderr, flush=True)
            found.append(measure(platform, name, arguments.seconds))
            print(_row(found[-1]), file=sys.stderr, flush=True)
            wrong += [f"{name}: {complaint}" for complaint in complaints(found[-1])]
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(each) for each in found], indent=2) + "\n")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
