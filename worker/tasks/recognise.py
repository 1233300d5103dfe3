"""Recognise: read one page with this worker's engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared import crash_point, ladder, pages, storage, turns
from shared.db import transaction
from shared.document import Recognition
from shared.errors import PageUnreadable
from shared.ladder import Standing
from shared.options import JobOptions
from shared.schema import NEWER
from worker import process
from worker.app import app
from worker.heartbeat import Held
from worker.pipeline import ink
from worker.tasks import figures
from worker.tasks.attempt import ask, carry_out, store

LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class _Assignment:
    image_key: str
    options: JobOptions
    before: Standing | None  # what the page was read as, where that had a flaw


@app.task(name="recognise")
def recognise(work_id: int) -> None:
    """Read one page and store what the engine says of it.

    While the engine is started again nothing is claimed: what waits here is only a message, and
    the page may go to another worker.
    """
    while not process.engine().await_ready(LOOK_SECONDS):
        if process.heartbeat().draining:
            with transaction() as session:
                turns.unsend(session, [work_id])
            return
    carry_out(work_id, _read)


def _read(held: Held) -> None:
    assignment = _assignment(held)
    if assignment is None:
        return
    try:
        image = storage.get(assignment.image_key)
    except storage.ObjectMissing as error:
        raise PageUnreadable("The page's image is gone from the store.") from error
    asked, engine = assignment.options, process.engine()
    mode = ladder.highest_mode(engine.name) if assignment.before else asked.mode
    reading = engine.submit(
        image, task=asked.task, mode=mode, prompt=asked.words, among=held.claim.among
    )
    held.progressed, held.give_up = reading.progressed, reading.cancel
    held.glance = reading.glance
    # By the name of the one that was asked: what a child calls itself is not to be trusted.
    recognition = reading.result().model_copy(update={"engine": engine.name})
    crash_point.reach("recognise", "read")
    outcome = _outcome(held, assignment, recognition, image)
    if outcome.next_engine is None:  # only what stands has figures
        outcome = replace(outcome, best=figures.keep(held, outcome.best, image))
        crash_point.reach("recognise", "stored")
    store(held, lambda session: ladder.conclude(session, held.claim, outcome), alone=True)


def _assignment(held: Held) -> _Assignment | None:
    found = ask(held, lambda session: pages.assignment(session, held.claim), alone=True)
    if found is None:
        return None
    image_key, options, is_again = found
    before = ask(held, lambda session: ladder.standing(session, held.claim)) if is_again else None
    return _Assignment(image_key, JobOptions.model_validate(options, extra=NEWER), before)


def _outcome(
    held: Held, assignment: _Assignment, recognition: Recognition, image: bytes
) -> ladder.Outcome:
    asked = assignment.options
    has_ink = bool(recognition.text) or ink.has_ink(image)
    flaw = ladder.flaw_of(recognition, asked.task, has_ink=has_ink)
    others = ask(held, lambda session: ladder.fallbacks(session, asked)) if flaw else None
    return ladder.outcome(
        assignment.before, recognition, flaw=flaw, task=asked.task, others=others or ()
    )
