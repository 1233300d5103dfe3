"""One attempt at a unit of work: claim, do, settle. Every task is made of this.

An error with a name is settled as `shared.failure` says. Any other exception crashes the task, the
lease runs out, and the work comes back: one recovery for a bug, a kill and a power cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from shared import crash_point, failure, turns, work
from shared.db import transaction
from shared.errors import DependencyUnavailable, OctavoError
from shared.work import Claim
from worker import process
from worker.heartbeat import AlreadyHeld, Held

RETRY_SECONDS = 0.5
LARGEST_ID = 2**63
"""Whoever can write to the broker may send what they like."""

Answer = TypeVar("Answer")

log = structlog.get_logger()


def carry_out(work_id: int, do: Callable[[Held], None]) -> None:
    """Claim work and do it.

    Work that is not queued is somebody else's, cancelled, or done: then nothing happens.
    """
    if not (isinstance(work_id, int) and 0 < work_id < LARGEST_ID):
        log.warning("message_rejected", why="its id is none")
        return
    claim = _claim(work_id)
    if claim is None:
        return
    crash_point.reach(claim.kind, "claimed")
    facts = {"job_id": claim.job_id.hex, "page": claim.page_no, "attempt": claim.attempt}
    with (
        suppress(AlreadyHeld),  # found in doubt by one of two messages, the other's in truth
        process.heartbeat().holding(claim) as held,
        structlog.contextvars.bound_contextvars(**facts),
    ):
        try:
            do(held)
        except OctavoError as error:
            settle(held, error)


def _claim(work_id: int) -> Claim | None:
    """Claim work; None where that is not to be.

    Where Postgres is away it waits: the message is here, and would come again only much later.
    A worker that is ending takes nothing more; what comes to it is sent to another at once.
    """
    heartbeat, in_doubt = process.heartbeat(), False
    while not heartbeat.draining:
        try:
            with transaction(alone=True) as session:
                claim = work.claim(session, work_id, heartbeat.worker_id, heartbeat.queues)
            if claim is None and in_doubt:  # the connection may have died with the answer
                with transaction(alone=True) as session:
                    claim = work.claimed(session, work_id, heartbeat.worker_id)
        except DependencyUnavailable:
            in_doubt = True
            time.sleep(RETRY_SECONDS)
        else:
            return claim
    with suppress(DependencyUnavailable), transaction() as session:
        turns.unsend(session, [work_id])
    return None


def settle(held: Held, error: OctavoError) -> None:
    """Give the work back or end it, as the error demands."""
    kind = held.claim.kind
    log.info("attempt_failed", kind=kind, code=error.code, detail=error.detail, blames=error.blames)
    _make(held, lambda session: failure.settle(session, held.claim, error))


def ask(held: Held, question: Callable[[Session], Answer], *, alone: bool = False) -> Answer | None:
    """What Postgres answers, waited for as `store` does; None where the claim was lost meanwhile."""
    while not held.lost:
        try:
            with transaction(alone=alone) as session:
                return question(session)
        except DependencyUnavailable:
            held.touch()
            time.sleep(RETRY_SECONDS)
    return None


def store(held: Held, transition: Callable[[Session], bool], *, alone: bool = False) -> bool:
    """Make a transition that follows from what was done; False where the claim was lost.

    Where Postgres is away, what was done is kept and tried again until it is back, even past the
    lease: the row says whether the claim still holds, and the sweeper leaves the heartbeat time to
    renew it. One of one statement is `alone`, see `transaction`.
    """
    happened = _make(held, transition, alone=alone)
    crash_point.reach(held.claim.kind, "committed")
    return happened


def _make(held: Held, transition: Callable[[Session], bool], *, alone: bool = False) -> bool:
    """Make a transition of held work, whenever Postgres is there; False where the claim was lost.

    A connection may die in the commit: what has ended under this attempt, this one ended.
    """
    in_doubt = False
    while not held.lost:
        try:
            with transaction(alone=alone) as session:
                happened = transition(session)
            if in_doubt and not happened:
                with transaction(alone=True) as session:
                    happened = work.has_ended(session, held.claim)
        except DependencyUnavailable:
            in_doubt = True
            held.touch()  # it does not stand still of itself
            time.sleep(RETRY_SECONDS)
        else:
            if not happened:
                log.warning("late_write_refused", kind=held.claim.kind)
            return happened
    return False
