"""Whether a client gets in the end what its documents say: every result is fetched and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from uuid import UUID

from benchmarks.chaos.documents import Fate, Submission
from client.errors import OctavoError
from client.models import DocumentPage, Job
from client.sdk import Octavo
from worker.engine.faults import Fault

AT_ONCE = 4

TEXT_OF_ITS_OWN = (Fault.GARBAGE, Fault.ENDLESS)
"""What the engine says of these is not the page's size."""


@dataclass(frozen=True)
class Found:
    """What one acknowledged job came to."""

    submission: Submission
    status: str
    wrong: str = ""  # what is not as it must be
    harmed: tuple[str, ...] = ()  # what became of pages that nothing was wrong with


def fetch(octavo: Octavo, acknowledged: Mapping[UUID, Submission]) -> list[Found]:
    """What became of each job that was not to be deleted."""
    kept = {
        job: submission
        for job, submission in acknowledged.items()
        if submission.fate is not Fate.DELETED
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda item: _fetch_one(octavo, *item), kept.items()))


def _fetch_one(octavo: Octavo, job_id: UUID, submission: Submission) -> Found:
    try:
        job = octavo.job(f"job_{job_id.hex}")
        if job.has_result:
            return _compared(octavo, job.id, job.status, submission)
    except OctavoError as error:
        return Found(submission, "unknown", wrong=f"{submission.key}: {error}")
    return _without_result(job, submission)


def _without_result(job: Job, submission: Submission) -> Found:
    is_as_wished = job.status == "cancelled" and submission.fate is Fate.CANCELLED
    innocent = submission.pages - len(submission.harmful)
    if is_as_wished or not job.is_final or not innocent:  # its row tells of one that is not final
        return Found(submission, job.status)
    code = job.error.code if job.error else "no error"
    if job.status == "failed":
        return Found(submission, job.status, harmed=(code,) * innocent)
    return Found(submission, job.status, wrong=f"{submission.key} is {job.status}: {code}")


def _compared(octavo: Octavo, job_id: str, status: str, submission: Submission) -> Found:
    pages = octavo.document(job_id).pages
    wrong = [f"{submission.key}: {words}" for words in _differences(submission, pages)]
    harmed = [
        page.error.code if page.error else page.status
        for page in pages
        if page.status != "succeeded" and page.page not in submission.harmful
    ]
    return Found(submission, status, wrong="; ".join(wrong), harmed=tuple(harmed))


def _differences(submission: Submission, pages: list[DocumentPage]) -> Iterator[str]:
    if [page.page for page in pages] != list(range(1, submission.pages + 1)):
        yield f"pages {[page.page for page in pages]} of {submission.pages}"
    for page in pages:
        if page.status != "succeeded":
            continue
        if page.page in submission.harmful:
            yield f"page {page.page} was read, which cannot be"
        elif not _says_its_size(submission, page):
            yield f"page {page.page} says {page.text[:60]!r}"


def _says_its_size(submission: Submission, page: DocumentPage) -> bool:
    fault = submission.faults[page.page - 1]
    if fault in TEXT_OF_ITS_OWN:
        return True
    width, height = submission.size(page.page)
    return page.text.endswith(f" {width}x{height}")
