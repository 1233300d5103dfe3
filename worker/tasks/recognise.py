"""Recognise: read one page with this worker's engine."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from shared import crash_point, ladder, pages, storage, work
from shared.db import transaction
from shared.errors import PageUnreadable
from shared.options import JobOptions
from shared.work import Claim
from worker import process
from worker.app import app
from worker.heartbeat import Held
from worker.pipeline import ink
from worker.tasks.attempt import carry_out, store

LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class _Assignment:
    image_key: str
    options: JobOptions
    is_again: bool


@app.task(name="recognise")
def recognise(work_id: int) -> None:
    """Read one page and store what the engine says of it.

    While the engine is started again nothing is claimed: what waits here is only a message, and
    the page may go to another worker.
    """
    while not process.engine().await_ready(LOOK_SECONDS):
        if process.heartbeat().draining:
            with transaction() as session:
                work.unsend(session, [work_id])
            return
    carry_out(work_id, _load, _read)


def _load(session: Session, claim: Claim) -> _Assignment | None:
    image_key, options, is_again = pages.assignment(session, claim)
    return _Assignment(image_key, JobOptions.model_validate(options), is_again)


def _read(held: Held, assignment: _Assignment) -> None:
    try:
        image = storage.get(assignment.image_key)
    except storage.ObjectMissing as error:
        raise PageUnreadable("The page's image is gone from the store.") from error
    asked, engine = assignment.options, process.engine()
    mode = ladder.highest_mode(engine.name) if assignment.is_again else asked.mode
    reading = engine.submit(
        image, task=asked.task, mode=mode, prompt=asked.words, among=held.claim.among
    )
    held.progressed, held.give_up = reading.progressed, reading.cancel
    recognition = reading.result()
    crash_point.reach("recognise", "read")
    has_ink = bool(recognition.text) or ink.has_ink(image)
    flaw = ladder.flaw_of(recognition, asked.task, has_ink=has_ink)
    store(
        held,
        lambda session: ladder.conclude(
            session, held.claim, recognition, flaw=flaw, options=asked, is_again=assignment.is_again
        ),
    )
