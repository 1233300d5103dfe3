"""Workers: what their heartbeats tell. Who was not seen for a while takes no work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.config import settings
from shared.models import NOW, Worker

FORGET_SECONDS = 24 * 3600


def beat(
    session: Session,
    worker_id: str,
    *,
    queues: Sequence[str],
    slots: int,
    busy: int,
    draining: bool,
    version: str,
    device: dict[str, Any],
) -> None:
    """Write down that a worker lives, what it takes, and how much it holds."""
    seen = {
        "queues": list(queues),
        "slots": slots,
        "busy": busy,
        "draining": draining,
        "version": version,
        "device": device,
        "last_seen_at": NOW,
    }
    statement = insert(Worker).values(id=worker_id, **seen)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=seen))


def leave(session: Session, worker_id: str) -> None:
    """Take a worker that ends out of the table."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def live_slots(session: Session) -> dict[str, int]:
    """How many units each queue's live workers may hold at once."""
    queue = func.unnest(Worker.queues).label("queue")
    live = (
        select(queue, Worker.slots)
        .where(Worker.last_seen_at > func.now() - _live_interval(), ~Worker.draining)
        .subquery()
    )
    query = select(live.c.queue, func.sum(live.c.slots)).group_by(live.c.queue)
    return {name: int(slots) for name, slots in session.execute(query)}


def forget(session: Session) -> int:
    """Remove workers that were not seen for a day; how many."""
    age = func.make_interval(0, 0, 0, 0, 0, 0, FORGET_SECONDS)
    statement = delete(Worker).where(Worker.last_seen_at < NOW - age).returning(Worker.id)
    return len(session.scalars(statement).all())


def _live_interval() -> Any:
    return func.make_interval(0, 0, 0, 0, 0, 0, 3 * settings().heartbeat_seconds)
