"""Pages that wait to be read, by the thousand: rows as prepare would leave them.

    python -m benchmarks.backlog 100000

lets a new tenant have so many, in the platform that the settings name.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.documents import page_images
from shared import keys, storage
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
        deadline_at=NOW + timedelta(hours=1),
    )
    session.add(job)
    session.flush()
    values = {"job_id": job.id, "tenant": tenant, "key": key, "pages": pages}
    shared = {"queue": recognise_queue(ENGINE), "lane": lane}
    for statement in _ROWS:
        session.execute(text(statement), values | shared)


def main(pages: int) -> None:
    """Make the tenant, its pages, and the one image of all of them."""
    with transaction() as session:
        tenant = keys.create_tenant(session, "loud")
    key = storage.page_key(tenant, uuid4(), 1, 1)
    storage.put(key, page_images(1)[0])
    queue_pages(tenant, pages, key=key)


if __name__ == "__main__":
    main(int(sys.argv[1]))
