"""The thread that watches over a worker: it ends one that is dead, and bounds the end of every one.

A worker that is told to end takes nothing more and finishes what it holds. What is not finished in
time is given back, uncounted, and the process ends whatever its threads are stuck in.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import structlog

from shared.config import settings
from shared.health import Health, HealthFile
from worker.heartbeat import Heartbeat
from worker.liveness import Liveness

LOOK_SECONDS = 0.2
CLOSE_SECONDS = 8.0
"""After the last work, for consumer, engine and heartbeat to end in order."""

log = structlog.get_logger()


class Watch:
    """One watch a process."""

    def __init__(self, heartbeat: Heartbeat, liveness: Liveness) -> None:
        self.why_dead: str | None = None
        self._heartbeat, self._liveness = heartbeat, liveness
        self._file = HealthFile(settings().health_file)
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def _run(self) -> None:
        while not self._heartbeat.draining:
            time.sleep(LOOK_SECONDS)
            health = self._liveness.health()
            self._file.write(health)
            if not health.is_live:
                self._end("; ".join(health.dead))
        self._drain()

    def _end(self, why: str) -> None:
        """Let this process end with an error, for its supervisor to start another."""
        log.critical("worker_dead", why=why)
        self.why_dead = why
        self._heartbeat.draining = True
        os.kill(os.getpid(), signal.SIGTERM)

    def _drain(self) -> None:
        log.info("drain_began", held=self._heartbeat.busy)
        self._heartbeat.hurry()  # the dispatcher counts its slots no longer
        ends_at = time.monotonic() + settings().drain_seconds
        while self._heartbeat.busy and time.monotonic() < ends_at:
            time.sleep(LOOK_SECONDS)
            self._file.write(Health(unready=["it is ending"]))
        if self._heartbeat.busy:
            self._heartbeat.give_back()
        time.sleep(CLOSE_SECONDS)
        # Still here: a thread is stuck, or the broker. Nothing is held any more.
        log.warning("drain_cut_short")
        self._heartbeat.stop()
        sys.stderr.flush()
        os._exit(1 if self.why_dead else 0)
