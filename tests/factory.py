"""Valid rows, so that a test names only what it is about."""

from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from shared import jobs, keys, new_pages, storage, work
from shared.db import transaction
from shared.document import Block, BlockKind, Recognition
from shared.models import Job, Work
from shared.new_pages import Rendered
from shared.status import Lane, WorkKind, WorkStatus
from shared.work import Claim


def make_tenant(session: Session) -> UUID:
    return keys.create_tenant(session, f"tenant {uuid4().hex}")


def authorization(*scopes: str) -> dict[str, str]:
    """The header of a new tenant with a new key, of all scopes unless some are named."""
    with transaction() as session:
        key = keys.create(session, make_tenant(session), scopes=scopes or keys.SCOPES)
    return {"Authorization": f"Bearer {key}"}


def make_job(session: Session, tenant: UUID | None = None, **values: Any) -> Job:
    """A job that waits to be prepared."""
    draft = Job(
        **{
            "id": uuid4(),
            "tenant": tenant or make_tenant(session),
            "options": {"task": "markdown", "engine": "auto"},
            "engine": "fake",
            "priority": Lane.INTERACTIVE,
            "user_metadata": {},
            "source_name": "a.pdf",
            "source_media_type": "application/pdf",
            "source_bytes": 3,
            "source_sha256": "0" * 64,
            "request_id": "req_test",
        }
        | values
    )
    job = jobs.create(session, draft)
    for name, value in values.items():  # also what a job comes to only later
        setattr(job, name, value)
    session.flush()
    return job


def make_prepared(session: Session, page_count: int, **values: Any) -> tuple[Job, list[Work]]:
    """A job whose pages all wait to be read, and the work to read them."""
    job = make_job(session, **values)
    held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
    assert new_pages.begin(session, held, job, page_count)
    rendered = [Rendered(number + 1, f"key/{number}", 100, 200) for number in range(page_count)]
    assert new_pages.add(session, held, rendered, ends_as=WorkStatus.SUCCEEDED)
    session.refresh(job)
    return job, work_of(session, job, WorkKind.RECOGNISE)


def make_readable(images: list[bytes]) -> Job:
    """A job whose pages, these images, lie in the store and wait to be read."""
    with transaction() as session:
        job = make_job(session)
        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
        assert new_pages.begin(session, held, job, len(images))
    rendered = []
    for page_no, image in enumerate(images, 1):
        key = storage.page_key(job.tenant, job.id, page_no, held.attempt)
        storage.put(key, image)
        rendered.append(Rendered(page_no, key, 100, 100))
    with transaction() as session:
        assert new_pages.add(session, held, rendered, ends_as=WorkStatus.SUCCEEDED)
    return job


def work_of(session: Session, job: Job, kind: WorkKind) -> list[Work]:
    query = select(Work).where(Work.job_id == job.id, Work.kind == kind).order_by(Work.page_no)
    return list(session.scalars(query.execution_options(populate_existing=True)))


def unread(session: Session, job: Job) -> list[Work]:
    """The work of a job's pages that are not final."""
    units = work_of(session, job, WorkKind.RECOGNISE)
    return [unit for unit in units if unit.status in (WorkStatus.QUEUED, WorkStatus.RUNNING)]


def claimed(session: Session, unit: Work) -> Claim:
    held = work.claim(session, unit.id, "worker")
    assert held is not None
    return held


def overdue(session: Session) -> None:
    """Let every lease have run out."""
    session.execute(text("UPDATE work SET lease_until = now() - interval '1 s'"))


def due_now(session: Session) -> None:
    """Let all that rests come due."""
    session.execute(text("UPDATE work SET due_at = now() WHERE status = 'queued'"))


def recognition(said: str = "said", **values: Any) -> Recognition:
    block = Block(kind=BlockKind.TEXT, text=said)
    return Recognition(
        **{"engine": "fake", "model": "1", "markdown": said, "text": said, "blocks": [block]}
        | values
    )
