"""What stands before a job that waits. An estimate: fairness may let it pass much of this."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from shared import prepared
from shared.models import Job
from shared.work import recognise_queue

COUNTED = 1_000
"""Neither count goes beyond: a poller's question must not read a long queue."""


@dataclass(frozen=True)
class Place:
    """Jobs that wait to be prepared, and pages that wait to be read, before a job."""

    jobs_ahead: int
    pages_ahead: int


# Of all tenants' work no more than these two counts: row-level security has a door for them.
_FIND = prepared.statement(
    "queue_place",
    "SELECT jobs_ahead, pages_ahead FROM octavo_queue_place(:lane, :since, :pages, :most)",
    lane="text",
    since="timestamptz",
    pages="text",
    most="integer",
)


def find(session: Session, job: Job) -> Place:
    """Where a queued job stands."""
    values = {
        "lane": job.priority,
        "since": job.created_at,
        "pages": recognise_queue(job.engine),
        "most": COUNTED,
    }
    return Place(*session.execute(_FIND, values).one())
