"""A worker process: Celery's consumer over a threads pool, its heartbeat, and its engine.

Nothing is forked: an engine and a parser live in processes of their own, so that this one survives
whatever they die of. SIGTERM ends it gracefully: no new claim, what is held is finished.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from celery import signals

from shared.config import settings
from shared.status import WorkKind
from shared.work import recognise_queue
from worker import process, weights
from worker.app import app, count_waiting
from worker.engine.host import EngineHost
from worker.glances import Glances
from worker.heartbeat import Heartbeat
from worker.liveness import Consumption, Liveness
from worker.pace import Pace
from worker.pipeline.nursery import nursery
from worker.watch import Watch


def run_cpu_worker(slots: int) -> None:
    """Prepare and assemble, `slots` units at once, until told to end."""
    nursery.start()
    queues = [WorkKind.PREPARE, WorkKind.ASSEMBLE]
    heartbeat = Heartbeat(queues, slots, {"kind": "cpu"}, kind="cpu")
    process.equip(heartbeat=heartbeat, engine=None)
    _work(heartbeat, None)


def run_engine_worker(engine: str) -> None:
    """Recognise pages with one engine in its own process, until told to end."""
    chosen = settings()
    weights.bring(os.environ)
    host = EngineHost(
        engine,
        page_seconds=chosen.page_seconds,
        stall_seconds=chosen.stall_seconds,
        max_recognition_bytes=chosen.max_recognition_bytes,
    )
    host.start()
    heartbeat = Heartbeat(
        [recognise_queue(engine)],
        host.slots,
        host.device,
        kind="engine",
        pace=Pace(lambda: host.vitals.tokens),
    )
    process.equip(heartbeat=heartbeat, engine=host)
    glances = Glances(heartbeat)
    glances.start()
    try:
        _work(heartbeat, host)
    finally:
        glances.stop()
        host.stop()


def _work(heartbeat: Heartbeat, host: EngineHost | None) -> None:
    """Take messages until told to end, or until that is of no use; then exits with an error."""
    watch = Watch(heartbeat, Liveness(heartbeat, host, Consumption(heartbeat, count_waiting)))
    _connect_signals(heartbeat)
    heartbeat.start()
    watch.start()
    try:
        _consume(heartbeat.queues, heartbeat.slots)
    finally:
        heartbeat.stop()
    if watch.why_dead:
        sys.exit(watch.why_dead)


def _consume(queues: Sequence[str], slots: int) -> None:
    # Not by Celery's command line, which takes most of a second to import.
    app.Worker(
        pool="threads",
        concurrency=slots,
        queues=queues,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        quiet=True,
    ).start()


def _connect_signals(heartbeat: Heartbeat) -> None:
    def announce(**_: object) -> None:
        print("ready", flush=True)  # noqa: T201 - whoever started the process waits for this line

    def drain(**_: object) -> None:
        heartbeat.draining = True

    def note(**_: object) -> None:
        heartbeat.note_message()

    signals.worker_ready.connect(announce, weak=False)
    signals.worker_shutting_down.connect(drain, weak=False)

    def begin(**_: object) -> None:
        heartbeat.take_up()

    def end(**_: object) -> None:
        heartbeat.put_down()

    signals.task_received.connect(note, weak=False)
    signals.task_prerun.connect(begin, weak=False)
    signals.task_postrun.connect(end, weak=False)
