"""Jobs: how they begin, move and end. The row is locked first, then those of its work.

`lock` returns the row; every function that ends a job locks it. A job's bytes are at
`storage.job_prefix`; its pages in `shared.new_pages` and `shared.pages`; its work in `shared.work`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared import audit, prepared, work
from shared.audit import SWEEPER, Action
from shared.config import settings
from shared.document import DocumentSource, Usage
from shared.errors import (
    DeadlineExceeded,
    JobDeleted,
    JobFinished,
    NotFound,
    OctavoError,
)
from shared.models import NOW, Job, Tombstone
from shared.page_range import PageRange
from shared.status import JobStatus, WorkKind, WorkStatus
from shared.work import Claim

UNFINISHED = (JobStatus.QUEUED, JobStatus.RUNNING)


def public_id(job_id: UUID) -> str:
    """A job's id as clients know it."""
    return f"job_{job_id.hex}"


def parse_id(public: str) -> UUID:
    """The id behind what a client says; raises NotFound where it cannot be one."""
    head, _, tail = public.partition("_")
    try:
        if head != "job" or len(tail) != len(UUID(int=0).hex):
            raise NotFound
        return UUID(hex=tail)
    except ValueError as error:
        raise NotFound from error


# Named, each of them: of what `*` says a kept plan is spoilt by a migration that adds a column.
_COLUMNS = ", ".join(Job.__table__.columns.keys())

_CREATE = prepared.statement(
    "create_job",
    f"""
    WITH job AS (
      INSERT INTO jobs (id, tenant, options, engine, priority, metadata, source_name,
        source_media_type, source_bytes, source_sha256, sealed_password, retry_of, request_id,
        deadline_at)
      VALUES (:id, :tenant, :options, :engine, :priority, :metadata, :source_name,
        :source_media_type, :source_bytes, :source_sha256, :sealed_password, :retry_of,
        :request_id, now() + make_interval(secs => :lasts))
      RETURNING {_COLUMNS}),
    preparing AS (
      INSERT INTO work (tenant, job_id, kind, queue, priority)
      SELECT tenant, id, '{WorkKind.PREPARE}', '{WorkKind.PREPARE}', priority FROM job
      RETURNING pg_notify('{work.BELL}', queue))
    SELECT job.* FROM job, preparing
    """,  # noqa: S608 - of our own words
    id="uuid",
    tenant="uuid",
    options="jsonb",
    engine="text",
    priority="text",
    metadata="jsonb",
    source_name="text",
    source_media_type="text",
    source_bytes="bigint",
    source_sha256="text",
    sealed_password="bytea",  # noqa: S106 - a type
    retry_of="uuid",
    request_id="text",
    lasts="float",
).bindparams(bindparam("options", type_=JSONB), bindparam("metadata", type_=JSONB))


def create(session: Session, draft: Job) -> Job:
    """The job that a draft becomes, due to end in time, with the work to prepare it."""
    values = {
        "id": draft.id,
        "tenant": draft.tenant,
        "options": draft.options,
        "engine": draft.engine,
        "priority": draft.priority,
        "metadata": draft.user_metadata,
        "source_name": draft.source_name,
        "source_media_type": draft.source_media_type,
        "source_bytes": draft.source_bytes,
        "source_sha256": draft.source_sha256,
        "sealed_password": draft.sealed_password,
        "retry_of": draft.retry_of,
        "request_id": draft.request_id,
        "lasts": 3600 * settings().job_hours,
    }
    made: Job = session.scalars(select(Job).from_statement(_CREATE), values).one()
    return made


def usage(job: Job) -> Usage:
    """What reading a job's pages has cost so far."""
    vision, output = job.vision_tokens, job.output_tokens
    return Usage(
        vision_tokens=vision,
        output_tokens=output,
        compression_ratio=round(output / vision, 3) if vision and output is not None else None,
        engine_seconds=round(job.engine_seconds, 3),
    )


def source(job: Job) -> DocumentSource:
    """The file that a job reads."""
    return DocumentSource(
        name=job.source_name,
        media_type=job.source_media_type,
        bytes=job.source_bytes,
        sha256=job.source_sha256,
    )


def outcome(job: Job) -> JobStatus:
    """How a job ends whose pages are all final."""
    if job.pages_succeeded == job.pages_total:
        return JobStatus.SUCCEEDED
    return JobStatus.PARTIALLY_SUCCEEDED if job.pages_succeeded else JobStatus.FAILED


def chosen_pages(options: dict[str, Any], source_pages: int) -> list[int]:
    """The numbers of the pages that a job with these options reads of a document of so many.

    Raises InvalidPageRange where that is none.
    """
    chosen = options.get("pages")
    if chosen is None:
        return list(range(1, source_pages + 1))
    return PageRange.parse(chosen).select(source_pages)


def get(session: Session, tenant: UUID, job_id: UUID) -> Job:
    """A tenant's job; raises NotFound, or JobDeleted while its tombstone is kept."""
    job = session.scalars(select(Job).where(Job.tenant == tenant, Job.id == job_id)).one_or_none()
    if job is None:
        _find_tombstone(session, tenant, job_id)
        raise JobDeleted
    if job.deleted_at is not None:
        raise JobDeleted
    return job


_PROGRESS = prepared.statement(
    "progress",
    "SELECT status, pages_total, pages_succeeded, pages_failed FROM jobs WHERE id = :id",
    id="uuid",
)


class Progress(NamedTuple):
    """What changes as a job goes on."""

    status: JobStatus
    pages_total: int | None
    pages_succeeded: int
    pages_failed: int


def progress(session: Session, job_id: UUID) -> Progress | None:
    """How far a job is, cheap enough to be looked at often; None where it is gone."""
    row = session.execute(_PROGRESS, {"id": job_id}).one_or_none()
    return None if row is None else Progress(JobStatus(row.status), *row[1:])


def recent(
    session: Session,
    tenant: UUID,
    *,
    before: tuple[datetime, UUID] | None,
    status: JobStatus | None,
    metadata: dict[str, str],
    most: int,
) -> list[Job]:
    """A tenant's jobs, newest first, from after the one at `before`."""
    query = (
        select(Job)
        .where(Job.tenant == tenant, Job.deleted_at.is_(None))
        .order_by(Job.created_at.desc(), Job.id.desc())
        .limit(most)
    )
    if before is not None:
        query = query.where(func.row(Job.created_at, Job.id) < func.row(*before))
    if status is not None:
        query = query.where(Job.status == status)
    if metadata:
        query = query.where(Job.user_metadata.contains(metadata))
    return list(session.scalars(query))


def unfinished_retries(session: Session, earlier: Sequence[UUID]) -> list[Job]:
    """Jobs under way that retry one of these."""
    query = select(Job).where(Job.status.in_(UNFINISHED), Job.retry_of.in_(earlier))
    return list(session.scalars(query)) if earlier else []


def lock(session: Session, job_id: UUID) -> Job | None:
    """A job's row, locked until the transaction ends; None where it is gone."""
    query = (
        select(Job)
        .where(Job.id == job_id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return session.scalars(query).one_or_none()


_FINISH = prepared.statement(
    "finish_job",
    """
    WITH job AS (SELECT id FROM jobs WHERE id = :job_id FOR NO KEY UPDATE),
    ended AS (
      UPDATE work SET status = 'succeeded', error = NULL, lease_until = NULL FROM job
      WHERE work.id = :id AND work.attempt = :attempt AND work.status = 'running'
      RETURNING work.job_id)
    UPDATE jobs SET status = :status, finished_at = now(),
      expires_at = now() + make_interval(secs => :kept), sealed_password = NULL,
      result_attempt = :attempt
    FROM ended WHERE jobs.id = ended.job_id RETURNING jobs.id
    """,
    id="bigint",
    attempt="integer",
    job_id="uuid",
    status="text",
    kept="float",
)


def finish(session: Session, held: Claim, status: JobStatus) -> bool:
    """End a job whose result this attempt has stored; False where the claim is lost."""
    values = {
        "id": held.id,
        "attempt": held.attempt,
        "job_id": held.job_id,
        "status": status,
        "kept": timedelta(days=settings().result_days).total_seconds(),
    }
    return session.execute(_FINISH, values).first() is not None


def fail(session: Session, held: Claim, error: OctavoError) -> bool:
    """End a job because of one of its own units of work; False where the claim is lost."""
    job = lock(session, held.job_id)
    if job is None or not work.end(session, held, WorkStatus.FAILED, error):
        return False
    _end(job, JobStatus.FAILED, error)
    work.cancel_all(session, job.id)
    return True


def cancel(session: Session, tenant: UUID, job_id: UUID) -> tuple[Job, bool]:
    """A tenant's job, cancelled, and whether that happened now; raises JobFinished, NotFound."""
    get(session, tenant, job_id)
    job = lock(session, job_id)
    if job is None or job.deleted_at is not None:
        raise JobDeleted
    if job.status is JobStatus.CANCELLED:
        return job, False
    if job.status.is_final:
        raise JobFinished(f"It ended as {job.status}.")
    _end(job, JobStatus.CANCELLED, None)
    work.cancel_all(session, job.id)
    return job, True


def overdue(session: Session) -> list[UUID]:
    """Jobs whose deadline has passed, to be ended one by one by `expire_deadline`."""
    query = select(Job.id).where(Job.status.in_(UNFINISHED), Job.deadline_at < NOW).limit(100)
    return list(session.scalars(query))


def expire_deadline(session: Session, job_id: UUID) -> None:
    """End a job whose deadline has passed."""
    job = lock(session, job_id)
    if job is not None and not job.status.is_final:
        _end(job, JobStatus.FAILED, DeadlineExceeded())
        work.cancel_all(session, job_id)


def outlived(session: Session) -> list[Job]:
    """Jobs whose retention has ended, whose objects are to go before `expire`."""
    query = select(Job).where(Job.expires_at < NOW, Job.deleted_at.is_(None)).limit(100)
    return list(session.scalars(query))


def expire(session: Session, job_id: UUID) -> None:
    """Forget what a finished job read; its row stays and says that it was."""
    job = lock(session, job_id)
    if job is None or not job.status.is_final or job.status is JobStatus.EXPIRED:
        return
    job.finished_as, job.status = job.status, JobStatus.EXPIRED
    job.expires_at, job.result_attempt = None, None
    for forget in (
        "DELETE FROM recognitions WHERE job_id = :id",
        "UPDATE pages SET draft = NULL WHERE job_id = :id AND draft IS NOT NULL",
    ):
        session.execute(text(forget), {"id": job_id})
    audit.record(session, job.tenant, SWEEPER, Action.JOB_EXPIRED, public_id(job_id))


def delete(session: Session, tenant: UUID, job_id: UUID) -> tuple[Job | Tombstone, bool]:
    """Mark a tenant's job deleted and stop its work; the sweeper takes rows and objects away.

    The job, or where it is gone already its tombstone with the counts; and whether it was deleted
    now. Raises NotFound.
    """
    job = lock(session, job_id)
    if job is None or job.tenant != tenant:
        return _find_tombstone(session, tenant, job_id), False
    if job.deleted_at is not None:
        return job, False
    job.deleted_at = session.execute(select(NOW)).scalar_one()
    if not job.status.is_final:
        _end(job, JobStatus.CANCELLED, None)
    work.cancel_all(session, job_id)
    return job, True


def deleted(session: Session) -> list[Job]:
    """Jobs marked deleted whose rows and objects are still there."""
    return list(session.scalars(select(Job).where(Job.deleted_at.is_not(None)).limit(100)))


_COUNT_ROWS = text(
    """
    SELECT 1 + (SELECT count(*) FROM pages WHERE job_id = :id)
      + (SELECT count(*) FROM work WHERE job_id = :id)
      + (SELECT count(*) FROM recognitions WHERE job_id = :id)
    """
)


def purge(session: Session, job_id: UUID, *, objects: int) -> None:
    """Take a deleted job's rows away and leave a tombstone.

    Objects are looked for once more after two leases: a worker that held some of its work when it
    was deleted may have written late.
    """
    job = lock(session, job_id)
    if job is None:
        return  # another sweeper was faster
    rows = session.execute(_COUNT_ROWS, {"id": job.id}).scalar_one()
    session.execute(text("DELETE FROM jobs WHERE id = :id"), {"id": job.id})  # and all below it
    assert job.deleted_at is not None
    session.add(
        Tombstone(
            job_id=job.id,
            tenant=job.tenant,
            deleted_at=job.deleted_at,
            check_at=NOW + timedelta(seconds=2 * settings().lease_seconds),
            rows=rows,
            objects=objects,
        )
    )
    thing = public_id(job.id)
    audit.record(session, job.tenant, SWEEPER, Action.JOB_PURGED, thing, rows=rows, objects=objects)


def tombstones_to_check(session: Session) -> list[Tombstone]:
    """Tombstones whose job's prefix is to be emptied once more."""
    return list(session.scalars(select(Tombstone).where(Tombstone.check_at < NOW).limit(100)))


def checked(session: Session, tombstone: Tombstone, *, objects: int) -> None:
    """Note that a late look found `objects` more, and that none will be looked for again."""
    session.execute(
        update(Tombstone)
        .where(Tombstone.job_id == tombstone.job_id)
        .values(check_at=None, objects=Tombstone.objects + objects)
    )


def _end(job: Job, status: JobStatus, error: OctavoError | None) -> None:
    job.status = status
    job.error = error.facts() if error else None
    job.finished_at = NOW
    job.expires_at = NOW + timedelta(days=settings().result_days)
    job.sealed_password = None


def _find_tombstone(session: Session, tenant: UUID, job_id: UUID) -> Tombstone:
    query = select(Tombstone).where(Tombstone.tenant == tenant, Tombstone.job_id == job_id)
    tombstone = session.scalars(query).one_or_none()
    if tombstone is None:
        raise NotFound
    return tombstone
