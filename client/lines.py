"""Jobs and pages in a line each. What stands in them is to be cleaned before it is shown."""

from __future__ import annotations

from client.models import Job, PageSummary


def progress_of(job: Job) -> str:
    """How far a job is, in a few words."""
    words = [job.status]
    if job.pages.total is not None:
        words.append(f"{job.pages.done} of {job.pages.total} pages")
    elif job.queue is not None:
        words.append(f"{job.queue.jobs_ahead} jobs ahead")
    if job.pages.failed:
        words.append(f"{job.pages.failed} failed")
    if job.error is not None:
        words.append(f"{job.error.code}: {job.error.detail}")
    return ", ".join(words)


def line_of_job(job: Job) -> str:
    """A job as a list shows it: id, status, pages, name, error, with spaces between."""
    total = "?" if job.pages.total is None else job.pages.total
    error = f"  {job.error.code}: {job.error.detail}" if job.error else ""
    progress = f"{job.pages.succeeded}/{total}"
    return f"{job.id}  {job.status:<19}  {progress:>9}  {job.source.name}{error}"


def line_of_page(page: PageSummary) -> str:
    """A page as a list shows it: number, status, confidence in 0..1, and what is wrong with it."""
    confidence = "" if page.confidence is None else f"{page.confidence:.2f}"
    review = "  needs review" if page.needs_review else ""
    error = f"  {page.error.code}: {page.error.detail}" if page.error else ""
    return f"{page.page:>5}  {page.status:<9}  {confidence:>4}{review}{error}".rstrip()
