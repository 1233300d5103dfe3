"""What the platform costs beside its engine: one run, one table.

    make overhead                # or: make overhead JSON=overhead.json

Everything runs on this machine, the load generators too, so take the rates as lower bounds and
compare only what one run printed. The raw engine is measured by turns with the platform, in as many
processes, on the same page images.

Of each rate there are four rounds, of which the fastest counts: a round takes seconds, and others
on the same host can only slow it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import engine, latency, uploads
from benchmarks.documents import page_images, repeated
from benchmarks.memory import PeakMemory
from client.sdk import Octavo
from deploy.local import Platform

ROUNDS = 4
ENGINE_PAGES = 120
ROWS = 2_000
SUBMISSIONS = 200
UPLOADS = 400


@dataclass(frozen=True)
class Overhead:
    """The figures of one run. Rates are per second, latencies in seconds, memory in MB."""

    engine_pages_per_s: float
    platform_pages_per_s: float
    rows_pages_per_s: float
    submit_p50_s: float
    submit_p99_s: float
    uploads_per_s: float
    peak_rss_mb: dict[str, float]
    stolen: float  # what others on the same host took of this machine's cores, as a share


def measure(processes: int) -> Overhead:
    """Measure everything once, with that many engines side by side."""
    peak, before = PeakMemory(), psutil.cpu_times()
    raw, whole = _measure_paddle(processes, peak)
    with _platform("fake", processes, peak) as (platform, octavo):
        _say("submissions of one page")
        median, tail = latency.measure(octavo, SUBMISSIONS)
        _say("page rows to results")
        rows = max(_measure_rows(platform) for _ in range(ROUNDS))
        _say("uploads of 1 MB")
        rate = max(uploads.measure(platform, UPLOADS) for _ in range(ROUNDS))
    stolen = _stolen(before, psutil.cpu_times())
    return Overhead(raw, whole, rows, median, tail, rate, peak.megabytes, stolen)


def _stolen(before: Any, after: Any) -> float:
    passed = float(sum(after) - sum(before))
    stolen = float(getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0))
    return round(stolen / passed, 3)


def _measure_paddle(processes: int, peak: PeakMemory) -> tuple[float, float]:
    """Pages a second of the bare engine, and of the platform around it."""
    images = page_images(ENGINE_PAGES)
    raw, whole = [], []
    for number in range(1, ROUNDS + 1):
        _say(f"the bare engine, round {number} of {ROUNDS}")
        raw.append(engine.pages_per_second(images, processes))
        with _platform("paddle", processes, peak) as (_, octavo):
            _say(f"the platform around it, round {number} of {ROUNDS}")
            whole.append(_read_document(octavo, ENGINE_PAGES))
    return max(raw), max(whole)


def _read_document(octavo: Octavo, pages: int) -> float:
    """Pages a second of one document, from its submission to its result."""
    with tempfile.NamedTemporaryFile(suffix=".pdf") as file:
        file.write(repeated(pages))
        file.flush()
        job = octavo.wait(octavo.submit(Path(file.name)).id)
    assert job.status == "succeeded", job
    assert job.finished_at is not None
    return pages / (job.finished_at - job.created_at).total_seconds()


def _measure_rows(platform: Platform) -> float:
    """Pages a second from rows that wait to their results, with an engine that takes no time."""
    command = [sys.executable, "-m", "benchmarks.rows", str(ROWS)]
    done = subprocess.run(command, env=platform.environment, capture_output=True, check=True)
    return float(done.stdout)


@contextmanager
def _platform(name: str, workers: int, peak: PeakMemory) -> Iterator[tuple[Platform, Octavo]]:
    with (
        tempfile.TemporaryDirectory(prefix="octavo-overhead-") as directory,
        Platform(Path(directory), engine=name, engine_workers=workers) as platform,
        Octavo(platform.url, platform.api_key) as octavo,
        peak.watching(platform),
    ):
        latency.measure(octavo, 2)  # the first of everything is slow
        yield platform, octavo


def table(found: Overhead) -> str:
    """The figures as a table in markdown."""
    share = found.platform_pages_per_s / found.engine_pages_per_s
    rows: list[tuple[str, str]] = [
        ("bare engine, pages/s", f"{found.engine_pages_per_s:.2f}"),
        ("platform, pages/s", f"{found.platform_pages_per_s:.2f} ({share:.0%})"),
        ("page rows to results, pages/s", f"{found.rows_pages_per_s:.0f}"),
        ("one page, submit to result, p50", f"{found.submit_p50_s * 1000:.0f} ms"),
        ("one page, submit to result, p99", f"{found.submit_p99_s * 1000:.0f} ms"),
        ("uploads of 1 MB, per second", f"{found.uploads_per_s:.0f}"),
        ("taken by others on the same host", f"{found.stolen:.0%} of the cores"),
        *((f"peak memory, {name}", f"{size:.0f} MB") for name, size in found.peak_rss_mb.items()),
    ]
    return "\n".join(["| figure | value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)])


def _say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description="What the platform costs beside its engine.")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--engines", type=int, default=os.cpu_count(), help="engines side by side")
    arguments = parser.parse_args()
    found = measure(arguments.engines)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
