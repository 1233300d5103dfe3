"""A worker process: Celery's consumer over a threads pool, its heartbeat, and its engine.

Nothing is forked: an engine and a parser live in processes of their own, so that this one survives
whatever they die of. SIGTERM ends it gracefully: no new claim, what is held is finished.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from celery import signals

from shared.config import settings
from shared.status import WorkKind
from shared.work import recognise_queue
from worker import process
from worker.app import app
from worker.engine.host import EngineHost
from worker.heartbeat import Heartbeat

LOOK_SECONDS = 1.0


def run_cpu_worker(slots: int) -> None:
    """Prepare and assemble, `slots` units at once, until told to end."""
    queues = [WorkKind.PREPARE, WorkKind.ASSEMBLE]
    process.equip(heartbeat=Heartbeat(queues, slots, {"kind": "cpu"}), engine=None)
    _consume(queues, slots)


def run_engine_worker(engine: str) -> None:
    """Recognise pages with one engine in its own process, until told to end."""
    chosen = settings()
    host = EngineHost(
        engine,
        page_seconds=chosen.page_seconds,
        stall_seconds=chosen.stall_seconds,
        max_recognition_bytes=chosen.max_recognition_bytes,
    )
    host.start()
    queues = [recognise_queue(engine)]
    process.equip(heartbeat=Heartbeat(queues, host.slots, host.device), engine=host)
    threading.Thread(target=_end_with, args=(host,), name="engine-watch", daemon=True).start()
    try:
        _consume(queues, host.slots)
    finally:
        host.stop()
    if host.broken:
        sys.exit("the engine dies again and again")


def _consume(queues: Sequence[str], slots: int) -> None:
    heartbeat = process.heartbeat()
    signals.worker_ready.connect(_announce, weak=False)
    signals.worker_shutting_down.connect(_drain, weak=False)
    heartbeat.start()
    try:
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
    finally:
        heartbeat.stop()


def _end_with(host: EngineHost) -> None:
    """End this worker when its engine cannot be brought back: others take its pages."""
    while not host.broken:
        time.sleep(LOOK_SECONDS)
    process.heartbeat().draining = True
    os.kill(os.getpid(), signal.SIGTERM)


def _announce(**_: object) -> None:
    print("ready", flush=True)  # noqa: T201 - whoever started the process waits for this line


def _drain(**_: object) -> None:
    process.heartbeat().draining = True
