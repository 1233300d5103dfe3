"""Workers: what their heartbeats tell. Who was not seen for a while takes no work.

Dispatcher and sweeper have a row as well, with no queue and no slot: it says when they last went
through a full round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NotRequired, TypedDict, Unpack

from sqlalchemy import delete, func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared import prepared
from shared.config import settings
from shared.models import NOW, Worker

FORGET_SECONDS = 24 * 3600


class Told(TypedDict):
    """What a heartbeat tells of its worker."""

    queues: Sequence[str]
    slots: int
    busy: int
    draining: bool
    version: str
    device: dict[str, Any]
    kind: NotRequired[str]
    idle_seconds: NotRequired[float | None]  # since its last message; None: it never had one


def beat(session: Session, worker_id: str, **told: Unpack[Told]) -> None:
    """Write down that a worker lives, what it takes, and how much it holds."""
    idle = told.pop("idle_seconds", None)
    seen = {
        **told,
        "queues": list(told["queues"]),
        "last_message_at": None if idle is None else NOW - _interval(idle),
        "last_seen_at": NOW,
    }
    statement = insert(Worker).values(id=worker_id, **seen)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=seen))


def rounded(session: Session, process_id: str, *, kind: str, version: str) -> None:
    """Write down that a dispatcher or sweeper has gone through a full round."""
    beat(
        session,
        process_id,
        kind=kind,
        queues=[],
        slots=0,
        busy=0,
        draining=False,
        version=version,
        device={},
    )


def leave(session: Session, worker_id: str) -> None:
    """Take a worker that ends out of the table."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


_LIVE_SLOTS = prepared.statement(
    "live_slots",
    """
    SELECT queue, sum(slots) AS slots FROM workers CROSS JOIN unnest(queues) AS queue
    WHERE last_seen_at > now() - make_interval(secs => :live) AND NOT draining GROUP BY queue
    """,
    live="float",
)


def live_slots(session: Session) -> dict[str, int]:
    """How many units each queue's live workers may hold at once."""
    rows = session.execute(_LIVE_SLOTS, {"live": 3 * settings().heartbeat_seconds})
    return {row.queue: int(row.slots) for row in rows}


def forget(session: Session) -> int:
    """Remove workers that were not seen for a day; how many."""
    statement = (
        delete(Worker)
        .where(Worker.last_seen_at < NOW - _interval(FORGET_SECONDS))
        .returning(Worker.id)
    )
    return len(session.scalars(statement).all())


def _interval(seconds: float) -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)
