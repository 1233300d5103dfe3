"""The heartbeat of a worker: one thread that says it lives and renews what it holds.

A lease is renewed only for work that goes on: a hung engine cannot keep its pages. What Postgres no longer counts as held was cancelled, or given to somebody else; its holder
is told to give up.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import structlog

from shared import work, workers
from shared.config import settings
from shared.db import transaction
from shared.errors import DependencyUnavailable
from shared.work import Claim

log = structlog.get_logger()


class Held:
    """Claimed work in the hands of this process."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.lost = False
        self.lease_until = time.monotonic() + settings().lease_seconds
        """By this process's clock, and never later than the row's."""
        self.progressed: Callable[[], bool] = lambda: False
        self.give_up: Callable[[], None] = lambda: None
        self._moved_at = time.monotonic()

    def touch(self) -> None:
        """Note that the work went on."""
        self._moved_at = time.monotonic()

    def goes_on(self) -> bool:
        """Whether the work moved within the time that an engine may be without progress."""
        if self.progressed():
            self.touch()
        return time.monotonic() - self._moved_at < settings().stall_seconds

    def lose(self) -> None:
        """The claim does not hold any more: whatever comes of the work will not count."""
        self.lost = True
        self.give_up()


class Heartbeat:
    """What this worker holds, and the thread that keeps it."""

    def __init__(self, queues: Sequence[str], slots: int, device: dict[str, Any]) -> None:
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.draining = False
        self._queues, self._slots, self._device = queues, slots, device
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Join the workers that the dispatcher counts, and stay among them."""
        self._beat()
        self._thread.start()

    def stop(self) -> None:
        """Leave the workers."""
        self._ended.set()
        self._thread.join()
        with transaction() as session:
            workers.leave(session, self.worker_id)

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[Held]:
        """Keep the lease of `claim` while the block runs and progresses."""
        held = Held(claim)
        with self._lock:
            self._held[claim.id] = held
        try:
            yield held
        finally:
            with self._lock:
                self._held.pop(claim.id, None)

    def _run(self) -> None:
        while not self._ended.wait(settings().heartbeat_seconds):
            try:
                self._beat()
            except DependencyUnavailable as error:
                log.warning("heartbeat_failed", detail=error.detail)
            except Exception:
                # A worker without a heartbeat would go on without leases, and nobody would know.
                log.exception("heartbeat_crashed")

    def _beat(self) -> None:
        sent = time.monotonic()
        with self._lock:
            everything = list(self._held.values())
        alive = [held for held in everything if held.goes_on()]
        with transaction() as session:
            workers.beat(
                session,
                self.worker_id,
                queues=self._queues,
                slots=self._slots,
                busy=len(everything),
                draining=self.draining,
                version=version("octavo"),
                device=self._device,
            )
            renewed = work.renew(session, [held.claim for held in alive]) if alive else set()
        for held in alive:
            if held.claim.id in renewed:
                held.lease_until = sent + settings().lease_seconds
            elif self._still_holds(held):
                log.info("claim_lost", work_id=held.claim.id, attempt=held.claim.attempt)
                held.lose()

    def _still_holds(self, held: Held) -> bool:
        with self._lock:
            return self._held.get(held.claim.id) is held
