"""What follows when an attempt at some work ends in an error.

One rule for every kind: what is nobody's fault goes back uncounted, what may pass is tried again a
few times, and the rest ends the page, or the job.

A page that may have killed its engine is read again in smaller company: among a few, where there
were many suspects, and then alone. Only a death while it was alone counts, and twice.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from shared import jobs, ladder, new_pages, work
from shared.config import settings
from shared.errors import (
    EngineDied,
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

SUSPECTS_TOGETHER = 8
"""How many pages an engine may hold while it reads one that is a suspect among more than these."""

ALONE = 1

DEATH_FAILURES = 2
"""What the engine's death counts for a page that nobody shared the suspicion with."""

_END: dict[WorkKind, Callable[[Session, Claim, OctavoError], bool]] = {
    WorkKind.PREPARE: new_pages.give_up,
    WorkKind.RECOGNISE: ladder.fail,
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
    if isinstance(error, EngineDied):
        return _settle_suspect(session, held, suspects=error.suspects)
    if error.retryable and held.failures + 1 < settings().max_failures:
        return work.retry_later(session, held)
    if isinstance(error, EngineUnavailable | InternalError):  # says nothing of the work itself
        return exhaust(session, held)
    return _END[held.kind](session, held, error)


def exhaust(session: Session, held: Claim) -> bool:
    """End work that failed too often without saying why."""
    return _END[held.kind](session, held, _EXHAUSTED[held.kind]())


def _settle_suspect(session: Session, held: Claim, *, suspects: int) -> bool:
    """Have a page that may have killed its engine read in smaller company, or end it."""
    if suspects > 1:
        among = SUSPECTS_TOGETHER if suspects > SUSPECTS_TOGETHER else ALONE
        return work.release(session, held, delay_seconds=RELEASE_SECONDS, among=among)
    if held.failures + DEATH_FAILURES < settings().max_failures:
        return work.retry_later(session, held, failures=DEATH_FAILURES, among=ALONE)
    return exhaust(session, held)
