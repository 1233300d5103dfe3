"""The audit log: who did what to which thing, when and from where.

A row is born in the transaction of what it tells of, so that there is neither without the other.
It holds ids and counts, and nothing of a document: no text, no name, no hash. The roles of the
processes may add rows and do nothing else; `octavo audit` shows them to the operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import bindparam
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared import prepared


class Action(StrEnum):
    """What was done."""

    KEY_CREATED = "key.created"
    KEY_FIRST_USED = "key.first_used"
    KEY_REVOKED = "key.revoked"
    JOB_CREATED = "job.created"
    JOB_RETRIED = "job.retried"  # the object is the new job
    JOB_CANCELLED = "job.cancelled"
    JOB_DELETED = "job.deleted"  # as its tenant asked
    JOB_PURGED = "job.purged"  # its rows and objects are gone
    JOB_EXPIRED = "job.expired"  # retention took its bytes
    PAGE_READ = "page.read"
    FIGURE_READ = "figure.read"
    RESULT_READ = "result.read"


@dataclass(frozen=True)
class Actor:
    """Who does something: an API key, by its id, or a part of the platform, by its name."""

    name: str
    request_id: str | None = None
    address: str | None = None  # the peer's: a proxy's, where there is one


OPERATOR = Actor("operator")
SWEEPER = Actor("sweeper")

_RECORD = prepared.statement(
    "record",
    """
    INSERT INTO audit (tenant, actor, action, object, request_id, address, facts)
    VALUES (:tenant, :actor, :action, :object, :request_id, :address, :facts)
    """,
    tenant="uuid",
    actor="text",
    action="text",
    object="text",
    request_id="text",
    address="text",
    facts="jsonb",
).bindparams(bindparam("facts", type_=JSONB))


def record(
    session: Session, tenant: UUID, actor: Actor, action: Action, thing: str, **facts: object
) -> None:
    """Add a row about `thing`, which is the id of what `action` was done to."""
    values = {
        "tenant": tenant,
        "actor": actor.name,
        "action": action,
        "object": thing,
        "request_id": actor.request_id,
        "address": actor.address,
        "facts": facts,
    }
    session.execute(_RECORD, values)
