"""The ladder: a page that was read with a flaw is read again, a few times, and never for ever.

    as the job asks -> its engine's highest mode -> each engine of OCTAVO_FALLBACK_ENGINES -> review

A flaw is a text that is cut off, goes round, or is empty where there is ink. A named engine is the
only one that reads; `auto` lets others help, where they know the task and a worker of theirs lives.
No engine reads a page twice in one mode, so the ladder has an end. What reads best is kept as the
page's draft; it stands when the ladder ends, when an error ends it, or when the next engine's
workers stay away.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Integer, Text, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import Session

from shared import abilities, jobs, pages, references, work, workers
from shared.config import settings
from shared.document import FinishReason, Flaw, Recognition, Try, Usage
from shared.errors import EngineUnavailable, OctavoError
from shared.options import JobOptions, Task
from shared.schema import NEWER
from shared.work import Claim, recognise_queue

MOST_READINGS = 4

_READING = {Task.MARKDOWN, Task.TEXT}
_BY_END = {FinishReason.LENGTH: Flaw.LENGTH, FinishReason.REPETITION: Flaw.REPETITION}
_FROM_BEST = (None, Flaw.LENGTH, Flaw.REPETITION, Flaw.EMPTY)


@dataclass(frozen=True)
class Standing:
    """What a page was read as before, never without a flaw."""

    tries: tuple[Try, ...]
    draft: Recognition


@dataclass(frozen=True)
class Outcome:
    """What a reading leads to: the best one so far stands, or is the draft while another is made."""

    best: Recognition
    tries: tuple[Try, ...]  # none where the first reading was sound
    spent: Usage  # not counted yet
    next_engine: str | None = None  # None: `best` stands


def flaw_of(recognition: Recognition, task: Task, *, has_ink: bool) -> Flaw | None:
    """What is wrong with a reading, if anything. Asked to locate or describe, none is empty."""
    is_empty = not (recognition.text.strip() or recognition.markdown.strip())
    if is_empty and has_ink and task in _READING:
        return Flaw.EMPTY
    return _BY_END.get(recognition.finish_reason)


def highest_mode(engine: str) -> str | None:
    """The mode of the ladder's upper steps; None where the engine has none."""
    modes = abilities.of(engine).modes
    return modes[-1] if modes else None


def next_engine(tries: Sequence[Try], task: Task, others: Sequence[str]) -> str | None:
    """Which engine is to read next, in its highest mode; None at the ladder's end."""
    if len(tries) >= MOST_READINGS:
        return None
    done = {(one.engine, one.mode) for one in tries}
    for engine in (tries[0].engine, *others):
        is_new = (engine, highest_mode(engine)) not in done
        if is_new and task in abilities.of(engine).tasks:
            return engine
    return None


def standing(session: Session, held: Claim) -> Standing | None:
    """What a claimed page was read as before; None where this is its first reading."""
    query = text(
        "SELECT tries, draft FROM pages "
        "WHERE job_id = :job_id AND page_no = :page_no AND draft IS NOT NULL"
    )
    row = session.execute(query, {"job_id": held.job_id, "page_no": held.page_no}).one_or_none()
    if row is None:
        return None
    tries = tuple(Try.model_validate(one, extra=NEWER) for one in row.tries)
    return Standing(tries, Recognition.model_validate_json(row.draft, extra=NEWER))


def fallbacks(session: Session, options: JobOptions) -> list[str]:
    """Engines beside the job's own that may read its pages now."""
    if options.engine != "auto":
        return []
    live: Collection[str] = workers.live_slots(session)
    return [engine for engine in settings().fallback_engines if recognise_queue(engine) in live]


def outcome(
    before: Standing | None,
    last: Recognition,
    *,
    flaw: Flaw | None,
    task: Task,
    others: Sequence[str],
) -> Outcome:
    """What the last reading of a page leads to, where `others` may read it as well."""
    if flaw is None and before is None:
        return Outcome(last, (), last.usage)
    one = Try(engine=last.engine, mode=last.mode, flaw=flaw, usage=last.usage)
    tries = (*(before.tries if before else ()), one)
    engine = next_engine(tries, task, others) if flaw else None
    return Outcome(_better(before, last, flaw), tries, last.usage, engine)


def conclude(session: Session, held: Claim, outcome: Outcome) -> bool:
    """Let a page stand as it was read, or have it read again; False where the claim is lost.

    Either is one statement.
    """
    if outcome.next_engine is not None:
        return _climb(session, held, outcome.next_engine, outcome)
    return _stand(session, held, outcome)


def fail(session: Session, held: Claim, error: OctavoError) -> bool:
    """End a page with an error, or with its draft where it has one.

    Whoever ends it may not have its image, so a draft that stands like this has no figures.
    """
    before = standing(session, held)
    if before is None:
        return pages.fail(session, held, error)
    engine = held.queue.partition(".")[2]
    last = Try(engine=engine, mode=highest_mode(engine), flaw=error.code)
    best = references.only(before.draft, held.page_no, ())
    return _stand(session, held, Outcome(best, (*before.tries, last), Usage()))


_ABANDONED = text(
    """
    SELECT w.id, w.job_id FROM pages p
    JOIN work w ON w.job_id = p.job_id AND w.page_no = p.page_no AND w.kind = 'recognise'
    JOIN jobs j ON j.id = p.job_id
    WHERE p.draft IS NOT NULL AND w.status = 'queued' AND w.due_at <= now()
      AND w.queue = ANY(:queues) AND w.queue <> 'recognise.' || j.engine
    ORDER BY w.id LIMIT 100
    """
).bindparams(bindparam("queues", type_=ARRAY(Text)))


def abandoned(session: Session, queues: Sequence[str]) -> list[tuple[int, UUID]]:
    """Pages that wait in these queues of engines beside their jobs' own: their work, their job."""
    return [(row.id, row.job_id) for row in session.execute(_ABANDONED, {"queues": list(queues)})]


def abandon(session: Session, work_id: int, job_id: UUID) -> bool:
    """Let the draft of a page stand whose next engine has no worker; False where one took it."""
    jobs.lock(session, job_id)
    held = work.claim(session, work_id, "sweeper")
    return held is not None and fail(session, held, EngineUnavailable("No worker of it is there."))


def _better(before: Standing | None, last: Recognition, flaw: Flaw | None) -> Recognition:
    """The reading with the smaller flaw; of equals the later, which was looked at more closely."""
    if before is None:
        return last
    best = min(_FROM_BEST.index(Flaw(one.flaw)) for one in before.tries if one.flaw)
    return last if _FROM_BEST.index(flaw) <= best else before.draft


def _stand(session: Session, held: Claim, outcome: Outcome) -> bool:
    """End a page with the best that was read of it."""
    if not outcome.tries:
        return pages.succeed(session, held, outcome.best)
    is_flawed = all(one.flaw for one in outcome.tries)
    best = outcome.best.model_copy(update={"tries": list(outcome.tries)})
    return pages.succeed(session, held, best, spent=outcome.spent, is_flawed=is_flawed)


_CLIMB = text(
    # The locks are those of the statement that ends a page. It keeps its turn: it has waited before.
    """
    WITH job AS (SELECT id FROM jobs WHERE id = :job_id FOR NO KEY UPDATE),
    climbed AS (
      UPDATE work SET status = 'queued', queue = :queue, sent_at = NULL, lease_until = NULL FROM job
      WHERE work.id = :id AND work.attempt = :attempt AND work.status = 'running'
      RETURNING work.job_id, work.page_no),
    kept AS (
      UPDATE pages SET tries = :tries, draft = :draft FROM climbed
      WHERE pages.job_id = climbed.job_id AND pages.page_no = climbed.page_no)
    UPDATE jobs SET
      vision_tokens = coalesce(vision_tokens + :vision_tokens, :vision_tokens, vision_tokens),
      output_tokens = coalesce(output_tokens + :output_tokens, :output_tokens, output_tokens),
      engine_seconds = engine_seconds + :engine_seconds
    FROM climbed WHERE jobs.id = climbed.job_id
    RETURNING jobs.id
    """
).bindparams(
    bindparam("tries", type_=JSONB),
    bindparam("vision_tokens", type_=Integer),
    bindparam("output_tokens", type_=Integer),
)


def _climb(session: Session, held: Claim, engine: str, outcome: Outcome) -> bool:
    """Give a page to an engine that is to read it again, and keep what was read."""
    values: dict[str, Any] = {
        "id": held.id,
        "attempt": held.attempt,
        "job_id": held.job_id,
        "queue": recognise_queue(engine),
        "tries": [one.model_dump(mode="json") for one in outcome.tries],
        "draft": outcome.best.model_dump_json(),
        "vision_tokens": outcome.spent.vision_tokens,
        "output_tokens": outcome.spent.output_tokens,
        "engine_seconds": outcome.spent.engine_seconds,
    }
    return session.execute(_CLIMB, values).first() is not None
