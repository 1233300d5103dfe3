"""The collector: takes objects away that belong to nothing.

A process that dies between an object and its row leaves the object, or parts of one. So does an
attempt that another one overtook. They are looked for by listing the whole store, a thousand
objects at a time and with rests, and only what is old is looked at: what is young may be about to
get its row. A thread of each sweeper; one of them works, the others stand by.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select

from shared import orphans, storage
from shared.advisory import AdvisoryLock
from shared.config import settings
from shared.db import Sole, sole_holder, transaction
from shared.errors import DependencyUnavailable
from shared.models import NOW

ROUNDS = 24
"""Rounds in the time after which an object counts as an orphan: one an hour, by default."""
REST_SECONDS = 0.1
BACK_OFF_SECONDS = 5.0

log = structlog.get_logger()


def run(stop: threading.Event) -> None:
    """Collect now and then, until told to stop."""
    while not stop.is_set():
        try:
            with sole_holder(AdvisoryLock.COLLECTION, stop) as sole:
                _rounds(stop, sole)
        except DependencyUnavailable as error:
            log.warning("collection_paused", detail=error.detail)
        except Exception:
            # A sweeper without a collector would go on, and nobody would know.
            log.exception("collection_failed")
        stop.wait(BACK_OFF_SECONDS)


def _rounds(stop: threading.Event, sole: Sole) -> None:
    age = timedelta(hours=settings().orphan_hours)
    while not stop.is_set():
        for _ in collect(before=_now() - age):
            if stop.wait(REST_SECONDS):
                return
            sole.check()
        stop.wait(age.total_seconds() / ROUNDS)
        sole.check()


def _now() -> datetime:
    with transaction() as session:
        return session.execute(select(NOW)).scalar_one()


def collect(*, before: datetime) -> Iterator[int]:
    """Take away what was stored before then and belongs to nothing, piece by piece.

    Yields how many there were after each piece, which is as much work as may be done in one go.
    """
    for objects in storage.listing():
        yield _collect_objects([found.key for found in objects if found.stored_at < before])
    yield _collect_uploads(before)


def _collect_objects(keys: list[str]) -> int:
    with transaction() as session:
        lost = orphans.among(session, keys)
    storage.delete(lost)
    for key in lost:
        log.info("orphan_collected", key=key)
    return len(lost)


def _collect_uploads(before: datetime) -> int:
    old = [upload for upload in storage.unfinished_uploads() if upload.begun_at < before]
    for upload in old:
        storage.abort_upload(upload.key, upload.upload_id)
        log.info("upload_collected", key=upload.key)
    return len(old)
