"""Pages that wait to be read, by the thousand: rows as prepare would leave them."""

from __future__ import annotations

from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import jobs
from shared.db import transaction
from shared.models import NOW, Job
from shared.status import JobStatus, Lane
from shared.work import recognise_queue

ENGINE = "fake"
PAGES_A_JOB = 2_000

_ROWS = (
    """
    INSERT INTO pages (job_id, page_no, tenant, image_key, width, height)
    SELECT :job_id, number, :tenant, :key, 1240, 1754 FROM generate_series(1, :pages) AS number
    """,
    """
    INSERT INTO work (tenant, job_id, kind, page_no, queue, priority)
    SELECT :tenant, :job_id, 'recognise', number, :queue, :lane
    FROM generate_series(1, :pages) AS number
    """,
)


def queue_pages(
    tenant: UUID, pages: int, *, key: str = "none", lane: Lane = Lane.INTERACTIVE
) -> None:
    """Let a tenant have that many pages waiting, in running jobs; `key` is the image of all."""
    for start in range(0, pages, PAGES_A_JOB):
        with transaction() as session:
            _queue_job(session, tenant, min(PAGES_A_JOB, pages - start), key, lane)


def _queue_job(session: Session, tenant: UUID, pages: int, key: str, lane: Lane) -> None:
    job = Job(
        id=uuid4(),
        tenant=tenant,
        status=JobStatus.RUNNING,
        started_at=NOW,
        options={"task": "markdown", "engine": "auto"},
        engine=ENGINE,
        priority=lane,
        user_metadata={},
        source_name="rows",
        source_media_type="application/pdf",
        source_bytes=0,
        source_sha256="",
        source_pages=pages,
        pages_total=pages,
        request_id="benchmark",
        deadline_at=jobs.deadline(),
    )
    session.add(job)
    session.flush()
    values = {"job_id": job.id, "tenant": tenant, "key": key, "pages": pages}
    shared = {"queue": recognise_queue(ENGINE), "lane": lane}
    for statement in _ROWS:
        session.execute(text(statement), values | shared)
