"""Figures of pages in the store: objects first, then the row that refers to them."""

from __future__ import annotations

import threading

from shared import references, storage
from shared.db import transaction
from shared.document import Recognition
from shared.errors import PageUnreadable
from shared.media import MediaType
from shared.models import Job
from worker import inherited
from worker.heartbeat import Held
from worker.pipeline import figures

_CUTTING = threading.BoundedSemaphore(2)  # a page decoded takes up to 120 MB, and threads are many


def keep(held: Held, recognition: Recognition, image: bytes) -> Recognition:
    """Store the figures of a page that was read; the recognition, which now refers to them.

    Their keys have the attempt: what one leaves that another overtook is collected.
    """
    if not references.are_in(recognition):
        return recognition
    claim, page_no = held.claim, held.claim.page_no
    with _CUTTING:
        held.touch()
        try:
            recognition, cut = figures.cut(recognition, image, page_no)
        except OSError as error:
            raise PageUnreadable("The page image is broken.") from error
    for figure in cut:
        if held.lost:
            break
        key = storage.figure_key(claim.tenant, claim.job_id, page_no, claim.attempt, figure.number)
        storage.put(key, figure.jpeg, MediaType.JPEG)
        held.touch()
    return recognition


def take_over(held: Held, job: Job) -> None:
    """Copy the figures of pages that an earlier job read, since they go when that job does."""
    if job.retry_of is None:
        return
    with transaction() as session:
        inheritance = inherited.by(session, job, job.retry_of)

    def goes_on() -> bool:
        held.touch()
        return not held.lost

    inherited.copy_figures(inheritance, goes_on=goes_on)
