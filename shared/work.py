"""The queue of record: every transition of a unit of work, each one guarded UPDATE.

    queued --claim--> running --end--> succeeded | failed | cancelled
    running --release, retry_later, rescue--> queued

Who of what is queued is sent next, `shared/turns.py` says.

A claim holds a lease and an attempt. The attempt is a fencing token: it only grows, and whoever
holds an old one matches no row. Times are Postgres's own, so that clocks need not agree.

Order of locks, always: the job's row first (`jobs.lock`), then rows of work by id. `release`,
`retry_later`, `renew`, `rescue` and `resend` touch no job row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import CursorResult, Row, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, INTEGER, JSONB
from sqlalchemy.orm import Session

from shared import prepared
from shared.config import settings
from shared.errors import OctavoError
from shared.status import WorkKind, WorkStatus

BROKER_PREFIX = "octavo:"
"""What the names of all lists in the broker begin with; the name of a queue follows."""

BELL = "octavo_work"
"""The channel on which the dispatcher hears, once it is committed, in which queue work is to be sent."""

GIVES_WAY_SECONDS = 10
"""More than a page takes to be read, or a long job's next pages would come before a new job's."""


@dataclass(frozen=True)
class Claim:
    """One attempt at a unit of work, and the proof of holding it."""

    id: int
    kind: WorkKind
    tenant: UUID
    job_id: UUID
    page_no: int  # 0 where the work is a whole job's
    queue: str
    attempt: int
    failures: int
    among: int | None  # pages that the engine may hold while it reads this one; None: any number


def recognise_queue(engine: str) -> str:
    """The queue of the workers that run `engine`."""
    return f"{WorkKind.RECOGNISE}.{engine}"


_CLAIM = prepared.statement(
    "claim",
    """
    UPDATE work SET status = 'running', attempt = attempt + 1, worker = :worker,
      lease_until = now() + make_interval(secs => :lease)
    WHERE id = :id AND status = 'queued' AND due_at <= now()
      AND (:queues IS NULL OR queue = ANY(:queues))
    RETURNING id, kind, tenant, job_id, page_no, queue, attempt, failures, among
    """,
    id="bigint",
    worker="text",
    lease="float",
    queues="text[]",
)


def claim(
    session: Session, work_id: int, worker: str, queues: Sequence[str] | None = None
) -> Claim | None:
    """Take a unit of work; None where it is somebody else's, final, or not yet due.

    With `queues` also where it is in none of them: work may have changed its queue since it was
    sent, and then the message is an old one.
    """
    values = {
        "id": work_id,
        "worker": worker,
        "lease": settings().lease_seconds,
        "queues": None if queues is None else list(queues),
    }
    row = session.execute(_CLAIM, values).one_or_none()
    return None if row is None else _claim_of(row)


def claimed(session: Session, work_id: int, worker: str) -> Claim | None:
    """What `worker` claimed and never heard of, its connection having died in the commit."""
    query = text(
        "SELECT id, kind, tenant, job_id, page_no, queue, attempt, failures, among FROM work "
        "WHERE id = :id AND status = 'running' AND worker = :worker"
    )
    row = session.execute(query, {"id": work_id, "worker": worker}).one_or_none()
    return None if row is None else _claim_of(row)


def has_ended(session: Session, held: Claim) -> bool:
    """Whether the work came to its end under this attempt, and no later one."""
    query = text(
        "SELECT 1 FROM work WHERE id = :id AND attempt = :attempt "
        "AND status IN ('succeeded', 'failed')"
    )
    return session.execute(query, {"id": held.id, "attempt": held.attempt}).first() is not None


_RENEW = text(
    # In order of id: several rows locked in no order would deadlock with a cancellation.
    """
    WITH mine AS (
      SELECT w.id FROM work w
      JOIN unnest(:ids, :attempts) AS held(id, attempt)
        ON w.id = held.id AND w.attempt = held.attempt
      WHERE w.status = 'running' ORDER BY w.id FOR NO KEY UPDATE OF w)
    UPDATE work w SET lease_until = now() + make_interval(secs => :lease)
    FROM mine WHERE w.id = mine.id RETURNING w.id
    """
).bindparams(bindparam("ids", type_=ARRAY(BIGINT)), bindparam("attempts", type_=ARRAY(INTEGER)))


def renew(session: Session, held: Iterable[Claim]) -> set[int]:
    """Lengthen the leases; the ids that are still held. The others are cancelled or lost."""
    claims = list(held)
    values = {
        "ids": [claim.id for claim in claims],
        "attempts": [claim.attempt for claim in claims],
        "lease": settings().lease_seconds,
    }
    return set(session.execute(_RENEW, values).scalars())


_END = text(
    """
    UPDATE work SET status = :status, error = :error, lease_until = NULL
    WHERE id = :id AND attempt = :attempt AND status = 'running'
    """
).bindparams(bindparam("error", type_=JSONB(none_as_null=True)))


def end(
    session: Session, held: Claim, status: WorkStatus, error: OctavoError | None = None
) -> bool:
    """Make work final where the claim still holds; the job's row must be locked."""
    return _change(session, held, _END, status=status, error=error.facts() if error else None)


_RELEASE = text(
    """
    UPDATE work SET status = 'queued', sent_at = NULL, lease_until = NULL,
      failures = failures + :failures, due_at = now() + make_interval(secs => :delay),
      turn_at = greatest(turn_at, now() + make_interval(secs => :delay)),
      among = coalesce(:among, among)
    WHERE id = :id AND attempt = :attempt AND status = 'running'
    """
).bindparams(bindparam("among", type_=INTEGER))


def release(
    session: Session, held: Claim, *, delay_seconds: float = 0, among: int | None = None
) -> bool:
    """Give work back through no fault of its own: no failure is counted.

    With `among`, it is next read in a company of so many pages at most.
    """
    return _change(session, held, _RELEASE, failures=0, delay=delay_seconds, among=among)


def retry_later(
    session: Session, held: Claim, *, failures: int = 1, among: int | None = None
) -> bool:
    """Give failed work back; it comes due after 0, 1, 3, 7 ... seconds."""
    delay = _backoff_seconds(held.failures)
    return _change(session, held, _RELEASE, failures=failures, delay=delay, among=among)


_RESCUE = text(
    # It goes back to the place that it was sent from, for it has waited before: behind the queue of a
    # busy platform it would be forgotten for a second time. A later page of a long job, which was
    # sent while nobody else had anything to do, would even wait behind all that came meanwhile.
    # And it is due at once: the lease was pause enough.
    f"""
    WITH overdue AS (
      SELECT id FROM work WHERE status = 'running' AND lease_until < now()
        AND failures + 1 < :max_failures ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED)
    UPDATE work w SET status = 'queued', sent_at = NULL, lease_until = NULL,
      failures = failures + 1, turn_at = least(turn_at, sent_at)
    FROM overdue WHERE w.id = overdue.id RETURNING pg_notify('{BELL}', w.queue)
    """  # noqa: S608 - of our own words
)


def rescue(session: Session) -> int:
    """Queue work again whose lease ran out; how much. An unexplained end counts as a failure."""
    return _count(session, _RESCUE, max_failures=settings().max_failures)


_RESEND = text(
    # From the place that it was sent from, as what is rescued.
    f"""
    WITH lost AS (
      SELECT id FROM work WHERE status = 'queued'
        AND sent_at < now() - make_interval(secs => :resend)
      ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED)
    UPDATE work w SET sent_at = NULL, turn_at = least(turn_at, sent_at)
    FROM lost WHERE w.id = lost.id
    RETURNING pg_notify('{BELL}', w.queue)
    """  # noqa: S608 - of our own words
)


def resend(session: Session) -> int:
    """Let work be sent again whose message came to nothing; how much."""
    return _count(session, _RESEND, resend=settings().resend_seconds)


def is_overdue(session: Session, held: Claim) -> bool:
    """Whether the claim holds and its lease has run out; if so it stays until the transaction ends."""
    query = text(
        "SELECT 1 FROM work WHERE id = :id AND attempt = :attempt AND status = 'running' "
        "AND lease_until < now() FOR NO KEY UPDATE"
    )
    return session.execute(query, {"id": held.id, "attempt": held.attempt}).first() is not None


def exhausted(session: Session) -> list[Claim]:
    """The claims whose lease ran out once too often; to be ended one by one."""
    query = text(
        "SELECT id, kind, tenant, job_id, page_no, queue, attempt, failures, among FROM work "
        "WHERE status = 'running' AND lease_until < now() AND failures + 1 >= :max_failures LIMIT 100"
    )
    rows = session.execute(query, {"max_failures": settings().max_failures})
    return [_claim_of(row) for row in rows]


def cancel_all(session: Session, job_id: UUID) -> None:
    """Cancel what a job still has to do; the job's row must be locked."""
    query = text(
        """
        WITH unfinished AS (
          SELECT id FROM work WHERE job_id = :job_id AND status IN ('queued', 'running')
          ORDER BY id FOR NO KEY UPDATE)
        UPDATE work w SET status = 'cancelled', lease_until = NULL
        FROM unfinished WHERE w.id = unfinished.id
        """
    )
    session.execute(query, {"job_id": job_id})


def _backoff_seconds(failures: int) -> int:
    return min((1 << failures) - 1, 60)


def _claim_of(row: Row[Any]) -> Claim:
    kind = WorkKind(row.kind)
    return Claim(
        row.id,
        kind,
        row.tenant,
        row.job_id,
        row.page_no,
        row.queue,
        row.attempt,
        row.failures,
        row.among,
    )


def _change(session: Session, held: Claim, statement: TextClause, **values: Any) -> bool:
    """Change the row of a claim; False where it is not held any more."""
    result = session.execute(statement, {"id": held.id, "attempt": held.attempt, **values})
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def _count(session: Session, statement: TextClause, **values: Any) -> int:
    return len(session.execute(statement, values).all())
