"""From page rows that wait to their results: the queue, the store and the engine's host alone.

Run by `benchmarks.overhead`, with the platform's settings in the environment; prints pages a second.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from benchmarks.documents import page_images
from shared import storage, work
from shared.db import transaction
from shared.models import NOW, Job, Tenant
from shared.status import JobStatus, Lane, WorkKind

LOOK_SECONDS = 0.05

_PAGES = text(
    """
    INSERT INTO pages (job_id, page_no, tenant, image_key, width, height)
    SELECT :job_id, number, :tenant, :key, 1240, 1754 FROM generate_series(1, :pages) AS number
    """
)


def main(pages: int) -> None:
    """Queue so many pages at once and wait until they are read."""
    with transaction() as session:
        job = _insert_job(session, pages)
        key = storage.page_key(job.tenant, job.id, 1, 1)
        storage.put(key, page_images(1)[0])
        values = {"job_id": job.id, "tenant": job.tenant, "key": key, "pages": pages}
        session.execute(_PAGES, values)
        work.add(session, job, WorkKind.RECOGNISE, range(1, pages + 1))
    began = time.perf_counter()
    while _read(job) < pages:
        time.sleep(LOOK_SECONDS)
    print(pages / (time.perf_counter() - began))


def _insert_job(session: Session, pages: int) -> Job:
    job = Job(
        id=uuid4(),
        tenant=session.scalars(select(Tenant.id)).first(),
        status=JobStatus.RUNNING,
        started_at=NOW,
        options={"task": "markdown", "engine": "auto"},
        engine="fake",
        priority=Lane.INTERACTIVE,
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
    return job


def _read(job: Job) -> int:
    with transaction() as session:
        query = select(Job.pages_succeeded).where(Job.id == job.id)
        return session.execute(query).scalar_one()


if __name__ == "__main__":
    main(int(sys.argv[1]))
