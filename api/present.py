"""Rows as the answers that clients see."""

from __future__ import annotations

import hashlib

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.schemas import (
    DeletionReceipt,
    Job,
    Links,
    PageCounts,
    PageSummary,
    QueuePlace,
)
from shared import jobs, pages, queue_place
from shared.config import settings
from shared.document import ProblemFacts
from shared.models import NOW, Page, Tombstone, Work
from shared.models import Job as JobRow
from shared.schema import NEWER
from shared.status import JobStatus, WorkStatus

AHEAD_A_SECOND = 25
LONGEST_RETRY_SECONDS = 30
"""A poller is told to stay away a second for so many jobs and pages ahead, and at most so long."""


def job(session: Session, row: JobRow) -> Job:
    """A job with its progress."""
    session.flush()
    return Job(
        id=jobs.public_id(row.id),
        status=row.status,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        deadline_at=row.deadline_at,
        expires_at=row.expires_at,
        source=jobs.source(row),
        options=row.options,
        pages=_counts(session, row),
        queue=_place(session, row),
        eta_seconds=_eta_seconds(session, row),
        usage=jobs.usage(row),
        error=ProblemFacts.model_validate(row.error, extra=NEWER) if row.error else None,
        warnings=row.warnings,
        metadata=row.user_metadata,
        retry_of=jobs.public_id(row.retry_of) if row.retry_of else None,
        finished_as=row.finished_as,
        links=_links(row),
    )


def etag(presented: Job) -> str:
    """An entity tag that changes when the job does; an estimate alone is no change."""
    facts = presented.model_dump_json(exclude={"eta_seconds", "queue"}, by_alias=True)
    return f'"{hashlib.sha256(facts.encode()).hexdigest()[:32]}"'


def page(
    row: Page, work: Work, *, confidence: float | None, needs_review: bool | None
) -> PageSummary:
    """How far a page is."""
    return PageSummary(
        page=row.page_no,
        status=work.status,
        width=row.width,
        height=row.height,
        attempts=work.attempt,
        confidence=confidence,
        needs_review=bool(needs_review),
        error=ProblemFacts.model_validate(work.error, extra=NEWER) if work.error else None,
    )


def receipt(found: JobRow | Tombstone) -> DeletionReceipt:
    """What became of a deleted job."""
    assert found.deleted_at is not None
    if isinstance(found, JobRow):
        public = jobs.public_id(found.id)
        return DeletionReceipt(
            id=public, deleted_at=found.deleted_at, purged_at=None, rows=0, objects=0
        )
    return DeletionReceipt(
        id=jobs.public_id(found.job_id),
        deleted_at=found.deleted_at,
        purged_at=found.purged_at,
        rows=found.rows,
        objects=found.objects,
    )


def retry_after_seconds(presented: Job) -> int:
    """How long a poller does well to wait: longer, the more stands before the job."""
    place = presented.queue
    ahead = place.jobs_ahead + place.pages_ahead if place else 0
    return min(max(1, presented.eta_seconds or ahead // AHEAD_A_SECOND), LONGEST_RETRY_SECONDS)


def _counts(session: Session, row: JobRow) -> PageCounts:
    running = 0
    if row.status is JobStatus.RUNNING:
        running = len(pages.numbers(session, row.id, WorkStatus.RUNNING))
    return PageCounts(
        total=row.pages_total,
        succeeded=row.pages_succeeded,
        failed=row.pages_failed,
        running=running,
    )


def _place(session: Session, row: JobRow) -> QueuePlace | None:
    if row.status is not JobStatus.QUEUED:
        return None
    place = queue_place.find(session, row)
    return QueuePlace(jobs_ahead=place.jobs_ahead, pages_ahead=place.pages_ahead)


def _eta_seconds(session: Session, row: JobRow) -> int | None:
    """By the pace so far: seconds a page times the pages left."""
    done = row.pages_succeeded + row.pages_failed
    if row.status is not JobStatus.RUNNING or not done or row.started_at is None:
        return None
    assert row.pages_total is not None
    now = session.execute(select(NOW)).scalar_one()
    elapsed = (now - row.started_at).total_seconds()
    return round(elapsed / done * (row.pages_total - done))


def _links(row: JobRow) -> Links:
    here = f"{settings().public_url}/v1/jobs/{jobs.public_id(row.id)}"
    return Links.model_validate(
        {
            "self": here,
            "pages": f"{here}/pages",
            "result": f"{here}/result",
            "cancel": f"{here}/cancel",
        }
    )
