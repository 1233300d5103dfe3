"""Objects in the store that belong to nothing: what processes left there that died.

An object comes before the row that refers to it, so this is to be asked of old objects only. What
is not surely ours and lost is left alone: objects of a tenant that the database does not know, for
it may be the wrong database, and objects of a kind that this version does not know, as long as
their job is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from sqlalchemy import Row, select, tuple_
from sqlalchemy.orm import Session

from shared.models import Job, Page, StoredRecognition, Tenant
from shared.status import JobStatus
from shared.storage import KeyParts, parse_key

_Reading = tuple[UUID, int, int]  # a job, a page of it, and the attempt that read it
_JobRow = Row[UUID, UUID, JobStatus, int | None, datetime | None]


def among(session: Session, keys: Iterable[str]) -> list[str]:
    """Those of the keys that nothing in the database refers to."""
    parsed = {key: parts for key in keys if (parts := parse_key(key))}
    tenants = _known_tenants(session, parsed.values())
    ours = {key: parts for key, parts in parsed.items() if parts.tenant in tenants}
    jobs = _jobs_of(session, ours.values())
    query = select(Page.image_key).where(Page.job_id.in_(jobs), Page.image_key.in_(ours))
    images = set(session.scalars(query))
    readings = _readings_of(session, ours.values())
    return [
        key
        for key, parts in ours.items()
        if not _is_needed(parts, jobs.get(parts.job_id), is_image=key in images, readings=readings)
    ]


def _is_needed(
    parts: KeyParts, job: _JobRow | None, *, is_image: bool, readings: set[_Reading]
) -> bool:
    if job is None or job.tenant != parts.tenant or job.status is JobStatus.EXPIRED:
        return False
    if job.deleted_at is not None:
        return True  # the purge takes it, and counts it
    if parts.is_page:
        return is_image
    if parts.figure_of:
        return (parts.job_id, *parts.figure_of) in readings
    return parts.result_attempt in (None, job.result_attempt)


def _known_tenants(session: Session, keys: Iterable[KeyParts]) -> set[UUID]:
    query = select(Tenant.id).where(Tenant.id.in_({parts.tenant for parts in keys}))
    return set(session.scalars(query))


def _jobs_of(session: Session, keys: Iterable[KeyParts]) -> dict[UUID, _JobRow]:
    query = select(Job.id, Job.tenant, Job.status, Job.result_attempt, Job.deleted_at).where(
        Job.id.in_({parts.job_id for parts in keys})
    )
    return {row.id: row for row in session.execute(query)}


def _readings_of(session: Session, keys: Iterable[KeyParts]) -> set[_Reading]:
    """Which attempts read the pages that have figures among the keys."""
    found = {(parts.job_id, parts.figure_of[0]) for parts in keys if parts.figure_of}
    page = tuple_(StoredRecognition.job_id, StoredRecognition.page_no)
    query = select(
        StoredRecognition.job_id, StoredRecognition.page_no, StoredRecognition.attempt
    ).where(page.in_(found))
    return {(row.job_id, row.page_no, row.attempt) for row in session.execute(query)}
