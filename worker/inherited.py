"""Figures of pages that a job takes over from the one it retries: copied, since they go with that.

Prepare copies them, and where the earlier job goes before that, whoever takes its objects away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from shared import jobs, pages, storage
from shared.models import Job


@dataclass(frozen=True)
class Inheritance:
    """What a job has of the one it retries."""

    tenant: UUID
    earlier: UUID
    job_id: UUID
    pages: set[tuple[int, int]]
    """Each with the attempt that read it."""


def by(session: Session, job: Job, earlier: UUID) -> Inheritance:
    """What a job has of the earlier one that it retries."""
    return Inheritance(job.tenant, earlier, job.id, pages.taken_over(session, job.id))


def left_by(session: Session, earlier: Sequence[Job]) -> list[Inheritance]:
    """What the unfinished retries of these jobs have of them."""
    retries = jobs.unfinished_retries(session, [job.id for job in earlier])
    return [by(session, job, job.retry_of) for job in retries if job.retry_of]


def copy_figures(inheritance: Inheritance, *, goes_on: Callable[[], bool]) -> bool:
    """Give a job its own copies of the figures it inherits; whether it has all of them.

    What it has is not copied again, what is gone is passed over, and two may do it at a time.
    `goes_on` is asked before each; where it says no, the rest is left to another time.
    """
    theirs, ours = (
        f"{storage.job_prefix(inheritance.tenant, job_id)}pages/"
        for job_id in (inheritance.earlier, inheritance.job_id)
    )
    there = set(_figures(ours, inheritance))
    for name in _figures(theirs, inheritance):
        if name in there:
            continue
        if not goes_on():
            return False
        with suppress(storage.ObjectMissing):  # the earlier job goes at this moment
            storage.copy(theirs + name, ours + name)
    return True


def _figures(prefix: str, inheritance: Inheritance) -> Iterator[str]:
    """The keys below `prefix` of figures of inherited pages."""
    if not inheritance.pages:
        return
    for objects in storage.listing(prefix):
        for found in objects:
            parts = storage.parse_key(found.key)
            if parts is not None and parts.figure_of in inheritance.pages:
                yield found.key.removeprefix(prefix)
