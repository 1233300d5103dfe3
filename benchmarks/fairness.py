"""How much longer a small job takes behind a large one: another tenant's, and its own tenant's.

    make fairness                # or: make fairness JSON=fairness.json

The whole platform with an engine that takes a tenth of a second a page and reads four at once.
First everything alone, then a job of 20 pages while another tenant has 100,000 waiting, then a job
of one page while its own tenant has a document of 2,000 pages in work.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.documents import repeated
from client.sdk import Octavo
from deploy.local import Platform

LOUD_PAGES = 100_000
LONG_PAGES = 2_000
SMALL_PAGES = 20
REPEATS = 5
UNDER_WAY = 20
"""Pages read of the long document, after which it is at its pace."""
SETTINGS = {"OCTAVO_FAKE_DELAY_SECONDS": "0.1", "OCTAVO_FAKE_SLOTS": "4"}


@dataclass(frozen=True)
class Fairness:
    """Medians in seconds, from a job's submission to its end; the slowest beside them."""

    small_alone_s: float
    small_alone_slowest_s: float
    small_behind_another_tenant_s: float
    small_behind_another_tenant_slowest_s: float
    page_alone_s: float
    page_behind_own_tenant_s: float
    page_behind_own_tenant_slowest_s: float
    long_pages_read_meanwhile: int


def measure() -> Fairness:
    """Measure everything once, on one platform."""
    with (
        tempfile.TemporaryDirectory(prefix="octavo-fairness-") as directory,
        Platform(Path(directory), engine="fake", settings=SETTINGS) as platform,
        Octavo(platform.url, platform.api_key) as octavo,
    ):
        small, page = repeated(SMALL_PAGES), repeated(1)
        _seconds(octavo, small)  # the first of everything is slow
        _say("both alone")
        alone, page_alone = _times(octavo, small), _times(octavo, page)
        _say(f"one page while its tenant has {LONG_PAGES} in work")
        own, read = _behind_own(octavo, page)
        _say(f"{SMALL_PAGES} pages while another tenant has {LOUD_PAGES} waiting")
        _queue_loud_pages(platform)
        behind = _times(octavo, small)
    return Fairness(
        statistics.median(alone),
        max(alone),
        statistics.median(behind),
        max(behind),
        statistics.median(page_alone),
        statistics.median(own),
        max(own),
        read,
    )


def _times(octavo: Octavo, document: bytes) -> list[float]:
    return [_seconds(octavo, document) for _ in range(REPEATS)]


def _seconds(octavo: Octavo, document: bytes) -> float:
    began = time.perf_counter()
    job = octavo.wait(octavo.submit(io.BytesIO(document), name="small.pdf").id)
    assert job.status == "succeeded", job
    return time.perf_counter() - began


def _behind_own(octavo: Octavo, page: bytes) -> tuple[list[float], int]:
    """The times of one page, and how many of the long document were read in the median of them."""
    long = octavo.submit(io.BytesIO(repeated(LONG_PAGES)), name="long.pdf")
    while octavo.job(long.id).pages.succeeded < UNDER_WAY:
        time.sleep(0.1)
    times, read = [], []
    for _ in range(REPEATS):
        before = octavo.job(long.id).pages.succeeded
        times.append(_seconds(octavo, page))
        read.append(octavo.job(long.id).pages.succeeded - before)
    assert not octavo.job(long.id).is_final, "it was to be in work all the while"
    octavo.cancel(long.id)
    return times, round(statistics.median(read))


def _queue_loud_pages(platform: Platform) -> None:
    command = [sys.executable, "-m", "benchmarks.backlog", str(LOUD_PAGES)]
    subprocess.run(command, env=platform.environment, capture_output=True, check=True)


def table(found: Fairness) -> str:
    """The figures as a table in markdown."""
    ratio = found.small_behind_another_tenant_s / found.small_alone_s
    loud = _both(found.small_behind_another_tenant_s, found.small_behind_another_tenant_slowest_s)
    own = _both(found.page_behind_own_tenant_s, found.page_behind_own_tenant_slowest_s)
    rows = [
        (
            f"{SMALL_PAGES} pages alone, median / slowest",
            f"{_both(found.small_alone_s, found.small_alone_slowest_s)} s",
        ),
        (
            f"{SMALL_PAGES} pages while another tenant has {LOUD_PAGES:,} waiting",
            f"{loud} s ({ratio:.2f} times)",
        ),
        ("one page alone", f"{found.page_alone_s:.2f} s"),
        (f"one page while its tenant has {LONG_PAGES:,} in work", f"{own} s"),
        ("pages of the long document read meanwhile", str(found.long_pages_read_meanwhile)),
    ]
    return "\n".join(["| figure | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def _both(median: float, slowest: float) -> str:
    return f"{median:.2f} / {slowest:.2f}"


def _say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description="How long small jobs take behind large ones.")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    arguments = parser.parse_args()
    found = measure()
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
