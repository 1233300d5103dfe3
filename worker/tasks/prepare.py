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

from shared import crash_point, new_pages, sealing, storage, work
from shared.config import settings
from shared.errors import (
    DependencyUnavailable,
    DocumentInvalid,
    InternalError,
    OctavoError,
    SourceUnavailable,
)
from shared.media import MediaType
from shared.models import Job
from shared.new_pages import Begun, Rendered
from shared.status import WorkStatus
from worker.app import app
from worker.heartbeat import Held
from worker.pipeline.render import Document, Limits, open_document
from worker.tasks import figures
from worker.tasks.attempt import ask, carry_out, store

LARGEST_WINDOW = 16
"""Pages whose rows are inserted by one transaction, once the first windows are through."""

SHORTEST_REST_SECONDS = 0.25
LONGEST_REST_SECONDS = 10.0
REST_SHARE = 1 / 8
"""Of the pages that prepare is ahead by, so many are to be read while it rests: each time it fetches
and opens the document again."""


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
            _render(held, job, document)


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


def _render(held: Held, job: Job, document: Document) -> None:
    begin = partial(new_pages.begin, held=held.claim, job=job, source_pages=document.pages_total)
    begun = ask(held, begin, alone=True)
    if begun is None:
        return
    if not begun.missing:
        end = partial(work.end, held=held.claim, status=WorkStatus.SUCCEEDED)
        store(held, end, alone=True)
        return
    left, behind = begun.missing, begun.unread
    room = max(0, settings().pages_ahead - behind)
    for window in _windows(left[:room]):
        rendered = [_render_page(held, document, page_no) for page_no in window if not held.lost]
        crash_point.reach("prepare", "stored")
        left = left[len(window) :]
        ends_as = None if left else WorkStatus.SUCCEEDED
        add = partial(
            new_pages.add, held=held.claim, rendered=rendered, behind=behind, ends_as=ends_as
        )
        if not store(held, add, alone=True):
            return
        held.make_good()
        behind += len(rendered)
    if left:
        release = partial(work.release, held=held.claim, delay_seconds=rest_seconds(begun))
        store(held, release, alone=True)


def rest_seconds(begun: Begun) -> float:
    """How long the readers take for their share, at the pace of the job so far."""
    pages = REST_SHARE * settings().pages_ahead
    seconds = pages * begun.seconds / begun.read if begun.read else begun.seconds
    return min(max(SHORTEST_REST_SECONDS, seconds), LONGEST_REST_SECONDS)


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
