"""The queue of record at 200,000 waiting pages of 50 tenants: picking, claiming, finishing.

    make queue                # or: make queue JSON=queue.json

Real Postgres, the product's own statements through SQLAlchemy and psycopg2, no broker and no
engine. A round is the dispatcher's own: what is due and busy, then what is picked and marked. Half of all pages are one loud tenant's. Everything runs on this machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.queues import Queue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import TypeVar

from sqlalchemy import text

from benchmarks.backlog import ENGINE, queue_pages
from deploy.embedded.services import Services
from migrations import run
from shared import keys, pages, turns, work, workers
from shared.db import forgettable_statements, transaction
from shared.document import Recognition, Usage
from shared.status import Lane
from shared.work import Claim

PAGES = 200_000
TENANTS = 50
SLOTS = 16
"""What the live workers hold at once."""
ROUNDS = 200
FINISHED = 4_000
"""Pages that are claimed and finished to tell their rate."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Figures:
    """The figures of one run, in milliseconds but for the rate."""

    round_p50_ms: float
    round_p99_ms: float
    fresh_round_p99_ms: float  # before Postgres knows anything of the rows
    pick_p50_ms: float
    pick_p99_ms: float
    claim_p50_ms: float
    claim_p99_ms: float
    finished_pages_per_s: float


def measure(processes: int) -> Figures:
    """Fill the queue and measure everything once."""
    from worker.dispatcher import Dispatcher  # noqa: PLC0415 - it reads the settings

    run.upgrade()
    _fill()
    dispatcher = Dispatcher()
    dispatcher.read_slots()
    fresh, _ = _rounds(dispatcher.mark, ROUNDS // 5)
    _execute("VACUUM ANALYZE")
    rounds, claims = _rounds(dispatcher.mark, ROUNDS)
    picks, _ = _rounds(_pick, ROUNDS)
    return Figures(
        round_p50_ms=_percentile(rounds, 50),
        round_p99_ms=_percentile(rounds, 99),
        fresh_round_p99_ms=_percentile(fresh, 99),
        pick_p50_ms=_percentile(picks, 50),
        pick_p99_ms=_percentile(picks, 99),
        claim_p50_ms=_percentile(claims, 50),
        claim_p99_ms=_percentile(claims, 99),
        finished_pages_per_s=_finished_per_second(dispatcher.mark, processes),
    )


def _fill() -> None:
    """Half of the pages for one tenant, the rest for the others."""
    with transaction() as session:
        tenants = [keys.create_tenant(session, f"tenant {number}") for number in range(TENANTS)]
        workers.beat(
            session,
            "benchmark",
            queues=[work.recognise_queue(ENGINE)],
            slots=SLOTS,
            busy=0,
            draining=False,
            version="0",
            device={},
        )
    _execute("UPDATE workers SET last_seen_at = now() + interval '1 day'")
    queue_pages(tenants[0], PAGES // 2)
    for tenant in tenants[1:]:
        queue_pages(tenant, PAGES // 2 // (TENANTS - 1))


def _execute(statement: str) -> None:
    with transaction(alone=True) as session:
        session.execute(text(statement))


def _pick() -> list[tuple[str, int]]:
    """A pick alone, as `mark` does it once it knows what is due and busy."""
    queue = work.recognise_queue(ENGINE)
    with forgettable_statements() as session:
        return [(queue, id_) for id_ in turns.pick(session, queue, Lane.INTERACTIVE, SLOTS)]


def _rounds(
    mark: Callable[[], Sequence[tuple[str, int]]], rounds: int
) -> tuple[list[float], list[float]]:
    """Milliseconds of each round and of each claim; what a round marks is finished after it."""
    round_ms, claim_ms = [], []
    for _ in range(rounds):
        marked, took = _timed(mark)
        round_ms.append(took)
        for _, work_id in marked:
            held, took = _timed(partial(_claim, work_id))
            claim_ms.append(took)
            _finish(held)
    return round_ms, claim_ms


def _timed(do: Callable[[], _Result]) -> tuple[_Result, float]:
    began = time.perf_counter()
    result = do()
    return result, (time.perf_counter() - began) * 1000


def _claim(work_id: int) -> Claim:
    """Claim a page and load what reading it needs, as a worker does."""
    with transaction(alone=True) as session:
        held = work.claim(session, work_id, "benchmark")
    assert held is not None
    with transaction(alone=True) as session:
        pages.assignment(session, held)
    return held


def _finish(held: Claim) -> None:
    with transaction(alone=True) as session:
        assert pages.succeed(session, held, _READ)


_READ = Recognition(
    engine=ENGINE,
    model="none",
    markdown="Read.",
    text="Read.",
    blocks=[],
    usage=Usage(engine_seconds=0.0),
)


def _finished_per_second(mark: Callable[[], Sequence[tuple[str, int]]], processes: int) -> float:
    """Pages claimed and finished in a second by that many processes, fed by the dispatcher."""
    context = multiprocessing.get_context("spawn")
    ids: Queue[int | None] = context.Queue()
    done: Synchronized[int] = context.Value("i", 0)
    crew = [context.Process(target=_work, args=(ids, done), daemon=True) for _ in range(processes)]
    for each in crew:
        each.start()
    while done.value < processes:  # each has finished one, so it is warm
        for _, work_id in mark():
            ids.put(work_id)
        time.sleep(0.01)
    before, began = done.value, time.perf_counter()
    while done.value - before < FINISHED:
        for _, work_id in mark():
            ids.put(work_id)
        time.sleep(0.01)
    rate = (done.value - before) / (time.perf_counter() - began)
    for _ in crew:
        ids.put(None)
    for each in crew:
        each.join()
    return rate


def _work(ids: Queue[int | None], done: Synchronized[int]) -> None:
    while (work_id := ids.get()) is not None:
        _finish(_claim(work_id))
        with done.get_lock():
            done.value += 1


def _percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def table(found: Figures) -> str:
    """The figures as a table in markdown."""
    rows = [
        ("the dispatcher's round, p50 / p99", found.round_p50_ms, found.round_p99_ms),
        ("a pick alone, p50 / p99", found.pick_p50_ms, found.pick_p99_ms),
        ("a claim, p50 / p99", found.claim_p50_ms, found.claim_p99_ms),
    ]
    return "\n".join(
        [
            f"| {PAGES} waiting pages, {TENANTS} tenants, {SLOTS} slots | value |",
            "|---|---|",
            *(f"| {what} | {p50:.1f} / {p99:.1f} ms |" for what, p50, p99 in rows),
            f"| a round before ANALYZE, p99 | {found.fresh_round_p99_ms:.1f} ms |",
            f"| claimed and finished, pages/s | {found.finished_pages_per_s:.0f} |",
        ]
    )


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description="The queue with 200,000 waiting pages.")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--processes", type=int, default=4, help="that claim and finish")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="octavo-queue-") as directory,
        Services(Path(directory)) as services,
    ):
        os.environ.update({**services.environment(), "OCTAVO_ENGINES": ENGINE})
        found = measure(arguments.processes)
    print(table(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(asdict(found), indent=2) + "\n")


if __name__ == "__main__":
    main()
