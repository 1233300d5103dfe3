"""Keys that clients give to requests, so that one which is sent twice is carried out once.

    (none) --begin--> under way --answer--> answered --24 h--> (none)
    under way --give_up, or its lease runs out--> (none)

A request that is under way holds a mark with a lease: where its gateway dies, the next one takes
over. The mark is a fencing token like a claim's attempt: who lost it cannot answer, so that of
many requests with one key one at most makes a job.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

from sqlalchemy import CursorResult, text
from sqlalchemy.orm import Session

from shared.config import settings
from shared.errors import IdempotencyInFlight

FORGOTTEN_AT_ONCE = 5_000

LOOK_AGAIN_SECONDS = 1
"""Most requests take less; one whose gateway died is in the way for as long as its lease."""


@dataclass(frozen=True)
class Mark:
    """The right of one request to answer for its key."""

    tenant: UUID
    route: str
    key: str
    holder: UUID


@dataclass(frozen=True)
class Answered:
    """What an earlier request with the key has come to."""

    job_id: UUID
    fingerprint: bytes


_BEGIN = text(
    """
    INSERT INTO idempotency_keys AS had (tenant, route, key, holder, held_until, expires_at)
    VALUES (:tenant, :route, :key, :holder, now() + make_interval(secs => :lease),
      now() + make_interval(secs => :kept))
    ON CONFLICT (tenant, route, key) DO UPDATE SET holder = EXCLUDED.holder,
      held_until = EXCLUDED.held_until, expires_at = EXCLUDED.expires_at,
      job_id = NULL, fingerprint = NULL
    WHERE had.expires_at < now() OR (had.job_id IS NULL AND had.held_until < now())
    RETURNING 1
    """
)

_FIND = text(
    """
    SELECT job_id, fingerprint FROM idempotency_keys
    WHERE tenant = :tenant AND route = :route AND key = :key AND expires_at >= now()
    """
)


def begin(session: Session, tenant: UUID, route: str, key: str) -> Mark | Answered:
    """The right to carry a request out, or what came of it; raises IdempotencyInFlight."""
    mark = Mark(tenant, route, key, uuid4())
    values = {
        **vars(mark),
        "lease": settings().idempotency_lease_seconds,
        "kept": settings().idempotency_hours * 3600,
    }
    if session.execute(_BEGIN, values).first() is not None:
        return mark
    found = find(session, tenant, route, key)
    if found is None:  # given up between the two statements
        raise IdempotencyInFlight(retry_after_seconds=LOOK_AGAIN_SECONDS)
    return found


def find(session: Session, tenant: UUID, route: str, key: str) -> Answered | None:
    """What came of a key; None where nothing is known of it. Raises IdempotencyInFlight."""
    values = {"tenant": tenant, "route": route, "key": key}
    row = session.execute(_FIND, values).one_or_none()
    if row is None:
        return None
    if row.job_id is None:
        raise IdempotencyInFlight(retry_after_seconds=LOOK_AGAIN_SECONDS)
    return Answered(row.job_id, bytes(row.fingerprint))


_MINE = "tenant = :tenant AND route = :route AND key = :key AND holder = :holder AND job_id IS NULL"

_RENEW = text(
    "UPDATE idempotency_keys SET held_until = now() + make_interval(secs => :lease) "  # noqa: S608
    f"WHERE {_MINE}"
)


def renew(session: Session, mark: Mark) -> None:
    """Lengthen the lease of a request that goes on; `answer` tells whether the mark was lost."""
    values = {**vars(mark), "lease": settings().idempotency_lease_seconds}
    session.execute(_RENEW, values)


_ANSWER = text(
    "UPDATE idempotency_keys SET job_id = :job_id, fingerprint = :fingerprint, "  # noqa: S608
    f"expires_at = now() + make_interval(secs => :kept) WHERE {_MINE}"
)


def answer(session: Session, mark: Mark, *, job_id: UUID, fingerprint: bytes) -> None:
    """Write down what came of a request, in the transaction that makes it so.

    Raises IdempotencyInFlight where the mark was lost to another request, which may have answered.
    """
    values = {
        **vars(mark),
        "job_id": job_id,
        "fingerprint": fingerprint,
        "kept": settings().idempotency_hours * 3600,
    }
    result = session.execute(_ANSWER, values)
    assert isinstance(result, CursorResult)
    if result.rowcount != 1:
        raise IdempotencyInFlight(retry_after_seconds=LOOK_AGAIN_SECONDS)


_GIVE_UP = text(f"DELETE FROM idempotency_keys WHERE {_MINE}")  # noqa: S608


def give_up(session: Session, mark: Mark) -> None:
    """Let the key be used again: nothing came of the request. An answered key stays."""
    session.execute(_GIVE_UP, vars(mark))


_FORGET = text(
    """
    DELETE FROM idempotency_keys WHERE ctid IN (
      SELECT ctid FROM idempotency_keys WHERE expires_at < now() LIMIT :most
      FOR UPDATE SKIP LOCKED)
    """
)


def forget(session: Session) -> int:
    """Remove keys that were kept for long enough; how many."""
    result = session.execute(_FORGET, {"most": FORGOTTEN_AT_ONCE})
    assert isinstance(result, CursorResult)
    return result.rowcount
