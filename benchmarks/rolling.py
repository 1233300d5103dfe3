"""A rolling restart of every process under load: what clients and work notice of it.

    make rolling                     # or: make rolling JSON=rolling.json ARGS="--rounds 10"

Two gateways, two engine workers, one of each other process; each is told to end and started again,
one after the other, while documents are submitted at a steady rate.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load import Load, failures, percentile, seconds_until_done
from benchmarks.outages import SETTINGS
from deploy.local import Platform

PER_SECOND = 2
SERVERS = {"postgres", "valkey", "seaweedfs"}
PAUSE_SECONDS = 0.5
DONE_SECONDS = 120


@dataclass(frozen=True)
class Rolling:
    """How the submissions during all restarts were answered, and what was counted as failed."""

    restarts: int
    statuses: dict[int, int]
    problems: list[str]
    p99: float
    slowest: float
    slowest_restart: float
    failures: int


def measure(platform: Platform, *, rounds: int, per_second: float = PER_SECOND) -> Rolling:
    """Restart every process so many times, one after the other, and see how that goes."""
    failed, took = failures(platform), []
    with Load(platform, per_second=per_second) as load:
        time.sleep(PAUSE_SECONDS)
        for _ in range(rounds):
            for name in sorted(platform.pids().keys() - SERVERS):
                began = time.monotonic()
                platform.restart(name)
                took.append(time.monotonic() - began)
                time.sleep(PAUSE_SECONDS)
    seconds_until_done(platform, at_most=DONE_SECONDS)
    return Rolling(
        restarts=len(took),
        statuses=dict(load.statuses()),
        problems=[answer.problem for answer in load.answers if answer.problem],
        p99=percentile(load.answers, 0.99),
        slowest=percentile(load.answers, 1),
        slowest_restart=max(took),
        failures=failures(platform) - failed,
    )


def table(found: Rolling) -> str:
    """The figures as a table in markdown."""
    answers = ", ".join(f"{count} of {status}" for status, count in found.statuses.items())
    lines = [
        ("figure", "value"),
        ("---", "---"),
        ("restarts", str(found.restarts)),
        ("submissions, by answer", answers),
        ("p99 and slowest submission", f"{found.p99:.2f} s, {found.slowest:.2f} s"),
        ("slowest restart", f"{found.slowest_restart:.1f} s"),
        ("failures counted", str(found.failures)),
    ]
    return "\n".join(f"| {name} | {value} |" for name, value in lines)


def main() -> None:
    """Measure, print, write what was asked for; ends with 1 where a client noticed."""
    parser = argparse.ArgumentParser(description="What a rolling restart costs.")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--rounds", type=int, default=10, help="restarts of each process")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="octavo-rolling-") as directory,
        Platform(
            Path(directory), engine="fake", engine_workers=2, gateways=2, settings=SETTINGS
        ) as platform,
    ):
        found = measure(platform, rounds=arguments.rounds)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    if found.statuses.keys() != {202} or found.failures:
        sys.exit("\n".join(["a client or some work noticed", *found.problems[:10]]))


if __name__ == "__main__":
    main()
