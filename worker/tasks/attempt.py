"""One attempt at a unit of work: claim, do, settle. Every task is made of this.

An error with a name is settled as `shared.failure` says. Any other exception crashes the task, the
lease runs out, and the work comes back: one recovery for a bug, a kill and a power cut.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.orm import Session

from shared import failure, work
from shared.db import transaction
from shared.errors import DependencyUnavailable, OctavoError
from shared.work import Claim
from worker import process
from worker.heartbeat import Held

RETRY_SECONDS = 0.5

Loaded = TypeVar("Loaded")

log = structlog.get_logger()


def carry_out(
    work_id: int,
    load: Callable[[Session, Claim], Loaded | None],
    do: Callable[[Held, Loaded], None],
) -> None:
    """Claim work, load what it needs in the same transaction, and do it.

    Work that is not queued is somebody else's, cancelled, or done: then nothing happens.
    """
    heartbeat = process.heartbeat()
    claim, loaded = _begin(work_id, heartbeat.worker_id, load)
    if claim is None or loaded is None:
        return
    facts = {"job_id": claim.job_id.hex, "page": claim.page_no, "attempt": claim.attempt}
    with heartbeat.holding(claim) as held, structlog.contextvars.bound_contextvars(**facts):
        try:
            do(held, loaded)
        except OctavoError as error:
            settle(held, error)


def _begin(
    work_id: int, worker_id: str, load: Callable[[Session, Claim], Loaded | None]
) -> tuple[Claim | None, Loaded | None]:
    try:
        with transaction() as session:
            claim = work.claim(session, work_id, worker_id)
            return claim, load(session, claim) if claim else None
    except DependencyUnavailable:
        raise
    except Exception:
        # What crashed took the claim back with it. Claimed by itself, its lease runs out and the
        # failure is counted; else the work would be sent again for ever.
        with transaction() as session:
            work.claim(session, work_id, worker_id)
        raise


def settle(held: Held, error: OctavoError) -> None:
    """Give the work back or end it, as the error demands."""
    kind = held.claim.kind
    log.info("attempt_failed", kind=kind, code=error.code, detail=error.detail, blames=error.blames)
    store(held, lambda session: failure.settle(session, held.claim, error))


def store(held: Held, transition: Callable[[Session], bool]) -> bool:
    """Make a transition of the held work; False where the claim was lost.

    Where Postgres is away, what was done is kept and tried again for as long as the lease lasts.
    """
    while not held.lost:
        try:
            with transaction() as session:
                happened = transition(session)
        except DependencyUnavailable:
            if time.monotonic() > held.lease_until:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            if not happened:
                log.warning("late_write_refused", kind=held.claim.kind)
            return happened
    return False
