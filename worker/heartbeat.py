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
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import structlog

from shared import work, workers
from shared.config import settings
from shared.db import own_transactions, transaction
from shared.errors import DependencyUnavailable
from shared.work import Claim
from worker.pace import Pace

log = structlog.get_logger()


class AlreadyHeld(Exception):
    """Another thread of this process holds the same claim."""


class Held:
    """Claimed work in the hands of this process."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.lost = False
        self.progressed: Callable[[], bool] = lambda: False
        self.give_up: Callable[[], None] = lambda: None
        self.glance: Callable[[], str] = str
        """The text of a page so far; the first call asks for it."""
        self._moved_at = time.monotonic()

    def touch(self) -> None:
        """Note that the work went on."""
        self._moved_at = time.monotonic()

    def goes_on(self) -> bool:
        """Whether the work moved within the time that an engine may be without progress."""
        if self.progressed():
            self.touch()
        return time.monotonic() - self._moved_at < settings().stall_seconds

    def make_good(self) -> None:
        """Note that something of the work is committed, and that its row forgot its failures."""
        self.claim = replace(self.claim, failures=0)

    def lose(self) -> None:
        """The claim does not hold any more: whatever comes of the work will not count."""
        self.lost = True
        self.give_up()


class Heartbeat:
    """What this worker holds, and the thread that keeps it."""

    def __init__(
        self,
        queues: Sequence[str],
        slots: int,
        device: dict[str, Any],
        *,
        kind: str = "worker",
        pace: Pace | None = None,
    ) -> None:
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self.queues, self.slots, self.kind = queues, slots, kind
        self.draining = False
        """Set by a signal handler too, which may do no more than that."""
        self.tried_at = self.renewed_at = time.monotonic()
        """When it last tried to renew, and when it could."""
        self.message_at: float | None = None
        self.hands = 0
        """Tasks that are carried out; one that waits for the database holds nothing yet."""
        self._device, self._pace = device, pace
        self._held: dict[int, Held] = {}
        self._lock = threading.Lock()
        self._transaction = own_transactions()  # the work may take all connections of the pool
        self._hurried = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def busy(self) -> int:
        """How many units of work it holds."""
        with self._lock:
            return len(self._held)

    def held(self) -> list[Held]:
        """The units of work that it holds."""
        with self._lock:
            return list(self._held.values())

    def start(self) -> None:
        """Join the workers that the dispatcher counts, and stay among them."""
        self._beat()
        self._thread.start()

    def hurry(self) -> None:
        """Beat now; not for signal handlers."""
        self._hurried.set()

    def stop(self) -> None:
        """Leave the workers; where the database is away, it forgets this one by itself."""
        self._ended = True
        self._hurried.set()
        self._thread.join()
        with suppress(DependencyUnavailable), self._transaction() as session:
            workers.leave(session, self.worker_id)

    def note_message(self) -> None:
        """A message has come from the broker."""
        self.message_at = time.monotonic()

    def take_up(self) -> None:
        """A task begins."""
        with self._lock:
            self.hands += 1

    def put_down(self) -> None:
        """A task has ended, whichever way."""
        with self._lock:
            self.hands -= 1

    def give_back(self) -> None:
        """Release all that is held, uncounted, for others to do; what comes of it is dropped."""
        everything = self.held()
        for held in everything:
            log.info("work_given_back", work_id=held.claim.id, attempt=held.claim.attempt)
            held.lose()
        with suppress(DependencyUnavailable), transaction() as session:
            for held in sorted(everything, key=lambda held: held.claim.id):
                work.release(session, held.claim)

    @contextmanager
    def holding(self, claim: Claim) -> Iterator[Held]:
        """Keep the lease of `claim` while the block runs and progresses. Raises AlreadyHeld."""
        held = self._hold(claim)
        try:
            yield held
        finally:
            with self._lock:
                if self._held.get(claim.id) is held:  # not that of a later attempt
                    del self._held[claim.id]

    def _hold(self, claim: Claim) -> Held:
        with self._lock:
            there = self._held.get(claim.id)
            if there is not None and there.claim.attempt >= claim.attempt:
                raise AlreadyHeld
            held = self._held[claim.id] = Held(claim)
            return held

    def _run(self) -> None:
        while not self._ended:
            self._hurried.wait(settings().heartbeat_seconds)
            self._hurried.clear()
            try:
                self._beat()
            except DependencyUnavailable as error:
                log.warning("heartbeat_failed", detail=error.detail)
            except Exception:
                # A worker without a heartbeat would go on without leases, and nobody would know.
                log.exception("heartbeat_crashed")
            self.tried_at = time.monotonic()

    def _beat(self) -> None:
        sent = time.monotonic()
        everything = self.held()
        alive = [held for held in everything if held.goes_on()]
        with self._transaction() as session:
            workers.beat(
                session,
                self.worker_id,
                kind=self.kind,
                queues=self.queues,
                slots=self.slots,
                busy=len(everything),
                idle_seconds=None if self.message_at is None else sent - self.message_at,
                draining=self.draining,
                version=version("octavo"),
                device=self._device | (self._pace.facts() if self._pace else {}),
            )
            renewed = work.renew(session, [held.claim for held in alive]) if alive else set()
        self.renewed_at = sent
        for held in alive:
            if held.claim.id not in renewed and self._still_holds(held):
                log.info("claim_lost", work_id=held.claim.id, attempt=held.claim.attempt)
                held.lose()

    def _still_holds(self, held: Held) -> bool:
        with self._lock:
            return self._held.get(held.claim.id) is held
