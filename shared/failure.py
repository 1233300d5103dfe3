"""What follows when an attempt at some work ends in an error.

One rule for every kind: what is nobody's fault goes back uncounted, what may pass is tried again a
few times, and the rest ends the page, or the job.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from shared import jobs, pages, work
from shared.config import settings
from shared.errors import (
    EngineUnavailable,
    InternalError,
    OctavoError,
    PageCrashedEngine,
    PoisonDocument,
)
from shared.status import WorkKind
from shared.work import Claim

RELEASE_SECONDS = 1.0
"""How long work rests that a missing part or a neighbour's crash gave back."""

_END: dict[WorkKind, Callable[[Session, Claim, OctavoError], bool]] = {
    WorkKind.PREPARE: pages.give_up,
    WorkKind.RECOGNISE: pages.fail,
    WorkKind.ASSEMBLE: jobs.fail,
}

_EXHAUSTED: dict[WorkKind, type[OctavoError]] = {
    WorkKind.PREPARE: PoisonDocument,
    WorkKind.RECOGNISE: PageCrashedEngine,
    WorkKind.ASSEMBLE: InternalError,
}


def settle(session: Session, held: Claim, error: OctavoError) -> bool:
    """Give the work back, or end it, as the error demands; False where the claim is lost."""
    if not error.blames:
        return work.release(session, held, delay_seconds=RELEASE_SECONDS)
    if error.retryable and held.failures + 1 < settings().max_failures:
        return work.retry_later(session, held)
    if isinstance(error, EngineUnavailable | InternalError):  # says nothing of the work itself
        return exhaust(session, held)
    return _END[held.kind](session, held, error)


def exhaust(session: Session, held: Claim) -> bool:
    """End work that failed too often without saying why."""
    return _END[held.kind](session, held, _EXHAUSTED[held.kind]())
