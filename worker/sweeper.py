"""The sweeper: what nobody else ends, it ends.

It gives back work whose lease ran out, lets messages be sent again that came to nothing, ends jobs
past their deadline, and takes away what retention or a deletion says, objects first. Several may
run; each step is safe to do twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import UUID

import structlog
from sqlalchemy.orm import Session

from shared import crash_point, failure, glances, idempotency, jobs, ladder, storage, work, workers
from shared.config import settings
from shared.db import transaction
from shared.errors import DatabaseBusy, DatabaseUnavailable, DependencyUnavailable
from shared.models import Job, Tombstone
from worker import inherited
from worker.deserted import Deserted
from worker.inherited import Inheritance
from worker.pulse import Pulse

TIDY_SECONDS = 15.0
HAND_OVER_FIGURES = 100
"""So many that retries inherit are copied in a round, in a second or two: whoever waits to be rescued
waits for them too. It is a number, not a time, so that each round gets on."""

log = structlog.get_logger()

AFTER_AN_OUTAGE = float("inf")
"""When leases may be judged while the database is away, or has not been heard yet."""


class Sweeper:
    """Rounds of sweeping."""

    def __init__(self) -> None:
        self._rescue_from = AFTER_AN_OUTAGE
        self._was_away = True
        self._tidy_from = 0.0
        self._deserted = Deserted()
        self._pulse = Pulse("sweeper")

    def run(self, stop: threading.Event) -> None:
        """Sweep until told to stop; at once again after a round that did something."""
        while not stop.is_set():
            if not self.round():
                stop.wait(settings().sweep_seconds)
        self._pulse.stop()

    def round(self) -> int:
        """Do each step once; how much there was to do."""
        self._was_away = False
        steps = [*JUDGEMENTS, resend, end_overdue, self._let_stand, purge, self._tell]
        done = sum(self._guarded(step) for step in steps) + self._tidy()
        if self._was_away:
            self._rescue_from = AFTER_AN_OUTAGE
        elif self._rescue_from == AFTER_AN_OUTAGE:
            # Every lease has run out, and every worker lives: they have time to say so.
            self._rescue_from = time.monotonic() + 2 * settings().heartbeat_seconds
        return done

    def _tidy(self) -> int:
        """Now and then, and as long as there is some of it, do what is in no hurry."""
        if time.monotonic() < self._tidy_from:
            return 0
        done = sum(self._guarded(step) for step in TIDYING)
        if not done:
            self._tidy_from = time.monotonic() + TIDY_SECONDS
        return done

    def _let_stand(self) -> int:
        """Let stand what was read of pages that wait for an engine whose workers stay away."""
        if not settings().fallback_engines:
            return 0
        with _answered() as session:
            queues = self._deserted.queues(session)
            waiting = ladder.abandoned(session, queues) if queues else []
        return sum(_abandon(*page) for page in waiting)

    def _tell(self) -> int:
        self._pulse.full_round()
        return 0

    def _guarded(self, step: Callable[[], int]) -> int:
        if step in JUDGEMENTS and (self._was_away or time.monotonic() < self._rescue_from):
            return 0
        try:
            done = step()
        except DatabaseBusy as error:
            # It is there: one row in the way of one step keeps no lease from being judged.
            log.warning("sweep_late", step=step.__name__, why=str(error.__cause__))
            return 0
        except DatabaseUnavailable as error:
            log.warning("sweep_paused", step=step.__name__, detail=error.detail)
            self._was_away = True
            self._pulse.no_round()
            return 0
        except Exception:
            # One row that nothing can be done with must not stop the other steps for ever.
            log.exception("sweep_failed", step=step.__name__)
            return 0
        if done:
            log.info("swept", step=step.__name__, count=done)
        return done


@contextmanager
def _answered() -> Iterator[Session]:
    """A transaction that is undone, as in an outage, where leases ran out while it waited.

    What is asked of a server that freezes is answered when it thaws, and before any heartbeat.
    """
    silence = DatabaseUnavailable("The database was silent for as long as a lease.")
    silent_from = time.monotonic() + settings().lease_seconds - settings().heartbeat_seconds
    try:
        with transaction() as session:
            yield session
            if time.monotonic() >= silent_from:
                raise silence
    except DatabaseBusy as error:
        if time.monotonic() >= silent_from:
            raise silence from error
        raise


def rescue() -> int:
    """Queue work again whose lease ran out."""
    with _answered() as session:
        return work.rescue(session)


def end_exhausted() -> int:
    """End work whose lease ran out once too often."""
    with _answered() as session:
        claims = work.exhausted(session)
    return sum(_end_if_still_overdue(claim) for claim in claims)


def _end_if_still_overdue(claim: work.Claim) -> bool:
    """End work unless its holder has renewed the lease since it was looked at."""
    with _answered() as session:
        jobs.lock(session, claim.job_id)
        return work.is_overdue(session, claim) and failure.exhaust(session, claim)


JUDGEMENTS = [rescue, end_exhausted]


def resend() -> int:
    """Let work be sent again whose message came to nothing."""
    with _answered() as session:
        return work.resend(session)


def end_overdue() -> int:
    """End jobs past their deadline."""
    with _answered() as session:
        overdue = jobs.overdue(session)
    for job_id in overdue:
        with _answered() as session:
            jobs.expire_deadline(session, job_id)
    return len(overdue)


def _abandon(work_id: int, job_id: UUID) -> bool:
    with _answered() as session:
        return ladder.abandon(session, work_id, job_id)


def expire() -> int:
    """Take away the bytes of jobs whose retention has ended."""
    with _answered() as session:
        outlived = jobs.outlived(session)
        left = inherited.left_by(session, outlived)
    waiting = _hand_over(left)
    return sum(_expire(job) for job in outlived if job.id not in waiting)


def _expire(job: Job) -> bool:
    try:
        storage.delete_prefix(storage.job_prefix(job.tenant, job.id))
    except DependencyUnavailable as error:
        return _postponed("expire", job.id, error)
    crash_point.reach("expire", "emptied")
    with _answered() as session:
        jobs.expire(session, job.id)
    return True


def purge() -> int:
    """Take away objects and rows of deleted jobs."""
    with _answered() as session:
        deleted = jobs.deleted(session)
        left = inherited.left_by(session, deleted)
    waiting = _hand_over(left)
    return sum(_purge(job) for job in deleted if job.id not in waiting)


def _purge(job: Job) -> bool:
    try:
        objects = storage.delete_prefix(storage.job_prefix(job.tenant, job.id))
    except DependencyUnavailable as error:
        return _postponed("purge", job.id, error)
    crash_point.reach("purge", "emptied")
    with _answered() as session:
        jobs.purge(session, job.id, objects=objects)
    return True


def _hand_over(left: Sequence[Inheritance]) -> set[UUID]:
    """Give retries what they inherit of jobs that go; the jobs that are to stay for another round."""
    turns = iter(range(HAND_OVER_FIGURES))
    return {each.earlier for each in left if not _handed_over(each, turns)}


def _handed_over(inheritance: Inheritance, turns: Iterator[int]) -> bool:
    try:
        return inherited.copy_figures(inheritance, goes_on=lambda: next(turns, None) is not None)
    except DependencyUnavailable as error:
        return _postponed("hand_over", inheritance.earlier, error)


def _postponed(step: str, job_id: UUID, error: DependencyUnavailable) -> bool:
    """Leave a job to the next round, and go on with those behind it."""
    log.warning("sweep_postponed", step=step, job_id=job_id.hex, detail=error.detail)
    return False


def check_tombstones() -> int:
    """Look once more for objects that a late worker wrote after its job was purged."""
    with _answered() as session:
        tombstones = jobs.tombstones_to_check(session)
    return sum(_check(tombstone) for tombstone in tombstones)


def _check(tombstone: Tombstone) -> bool:
    try:
        objects = storage.delete_prefix(storage.job_prefix(tombstone.tenant, tombstone.job_id))
    except DependencyUnavailable as error:
        return _postponed("check_tombstones", tombstone.job_id, error)
    with _answered() as session:
        jobs.checked(session, tombstone, objects=objects)
    return True


def forget_keys() -> int:
    """Take away keys of requests that were kept for long enough."""
    with _answered() as session:
        return idempotency.forget(session)


def forget_glances() -> int:
    """Take away the texts of pages that nobody watches any more."""
    with transaction() as session:
        return glances.forget(session)


def forget_workers() -> int:
    """Take workers out of the table that were not seen for long."""
    with _answered() as session:
        return workers.forget(session)


TIDYING = [expire, check_tombstones, forget_keys, forget_glances, forget_workers]
