"""Prepare: open a job's document, render its pages into the store, queue them to be read.

In windows that grow from one page, so that the first is read while the rest is rendered; and never
more than `pages_ahead` before the readers, so that a long document does not shut out a short one.
A round that stops for that is released, comes due again, and goes on behind the last page.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from typing import IO

from shared import crash_point, jobs, pages, sealing, storage, work
from shared.config import settings
from shared.db import transaction
from shared.errors import (
    DependencyUnavailable,
    DocumentInvalid,
    InternalError,
    OctavoError,
    SourceUnavailable,
)
from shared.media import MediaType
from shared.models import Job
from shared.pages import Rendered
from shared.status import WorkStatus
from worker.app import app
from worker.heartbeat import Held
from worker.pipeline.render import Document, Limits, open_document
from worker.tasks import figures
from worker.tasks.attempt import ask, carry_out, store

LARGEST_WINDOW = 16
"""Pages whose rows are inserted by one transaction, once the first windows are through."""

REST_SECONDS = 0.25
"""How long a job rests whose readers are to catch up."""


@app.task(name="prepare")
def prepare(work_id: int) -> None:
    """Render the next pages of a job."""
    carry_out(work_id, _prepare)


def _prepare(held: Held) -> None:
    job = ask(held, lambda session: session.get(Job, held.claim.job_id), alone=True)
    if job is None:
        return
    figures.take_over(held, job)
    with tempfile.TemporaryFile() as file:
        _download(held, job, file)
        with _open(job, file) as document:
            _render(held, document)


def _download(held: Held, job: Job, file: IO[bytes]) -> None:
    try:
        key = storage.source_key(job.tenant, job.id)
        sha256 = storage.download(key, file, on_piece=held.touch)
    except storage.ObjectMissing as error:
        raise DocumentInvalid("The document is gone from the store.") from error
    if sha256 != job.source_sha256:
        raise SourceUnavailable("The store gave back other bytes than it took.")
    file.seek(0)


def _open(job: Job, file: IO[bytes]) -> Document:
    return open_document(
        file.fileno(),
        MediaType(job.source_media_type),
        limits=Limits.of(settings()),
        password=sealing.unseal(job.sealed_password) if job.sealed_password else None,
    )


def _render(held: Held, document: Document) -> None:
    missing, room = _begin(held, document.pages_total)
    behind = settings().pages_ahead - room
    for window in _windows(missing[:room]):
        rendered = [_render_page(held, document, page_no) for page_no in window if not held.lost]
        crash_point.reach("prepare", "stored")
        add = partial(pages.add, held=held.claim, rendered=rendered, behind=behind)
        if not store(held, add):
            return
        behind += len(rendered)
    if room < len(missing):
        store(held, lambda session: work.release(session, held.claim, delay_seconds=REST_SECONDS))
    else:
        store(held, lambda session: work.end(session, held.claim, WorkStatus.SUCCEEDED))


def _begin(held: Held, source_pages: int) -> tuple[list[int], int]:
    """The pages still to be rendered, and how many of them may be, for now."""
    with transaction() as session:
        job = pages.begin(session, held.claim, source_pages)
        if job is None:
            return [], 0
        known = pages.known(session, job.id)
        missing = [page_no for page_no in jobs.chosen_pages(job) if page_no not in known]
        return missing, max(0, settings().pages_ahead - pages.unread(session, job.id))


def _render_page(held: Held, document: Document, page_no: int) -> Rendered:
    try:
        image = document.render(page_no - 1)
    except (DependencyUnavailable, InternalError):
        raise  # no fault of this page
    except OctavoError as error:
        return Rendered(page_no, error=error)
    finally:
        held.touch()
    claim = held.claim
    key = storage.page_key(claim.tenant, claim.job_id, page_no, claim.attempt)
    storage.put(key, image.jpeg, MediaType.JPEG)
    return Rendered(page_no, key, image.width, image.height)


def _windows(page_nos: Sequence[int]) -> Iterator[Sequence[int]]:
    start, size = 0, 1
    while start < len(page_nos):
        yield page_nos[start : start + size]
        start, size = start + size, min(2 * size, LARGEST_WINDOW)
