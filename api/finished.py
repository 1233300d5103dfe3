"""Pages that are final, or why they are not there."""

from __future__ import annotations

from sqlalchemy.orm import Session

from shared import jobs, pages
from shared.document import DocumentPage
from shared.errors import NotFound, OctavoError, PageNotFinished, ResultExpired
from shared.models import Job
from shared.status import JobStatus


def unexpired(job: Job) -> Job:
    """The job, whose results are still there; raises ResultExpired."""
    if job.status is JobStatus.EXPIRED:
        raise ResultExpired
    return job


def page(session: Session, job: Job, page_no: int) -> DocumentPage | None:
    """A page that is final; None where it is not, or there is none of that number."""
    found = pages.finished(session, job.id, after=page_no - 1, most=1)
    return found[0] if found and found[0].page == page_no else None


def absence(job: Job, page_no: int) -> OctavoError:
    """Why a page is not there: NotFound, or PageNotFinished where it may still come."""
    if job.status.is_final or not _may_come(job, page_no):
        return NotFound("The job has no such page.")
    return PageNotFinished(retry_after_seconds=1)


def _may_come(job: Job, page_no: int) -> bool:
    """Whether a page that is not finished may still become so."""
    if job.source_pages is None:
        return True
    return page_no in jobs.chosen_pages(job.options, job.source_pages)
