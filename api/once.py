"""Requests with an Idempotency-Key: carried out once, and answered the same each time.

A refusal leaves the key free. Where a gateway dies in between, the next request takes over, once
the lease of the first has run out.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any
from uuid import UUID

from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from shared import idempotency, jobs
from shared.config import settings
from shared.db import transaction
from shared.errors import DatabaseUnavailable, IdempotencyMismatch, OctavoError
from shared.idempotency import Answered, Mark
from shared.models import Job

REPLAYED = "Idempotency-Replayed"

REPLAYED_HEADER: dict[str, Any] = {
    REPLAYED: {
        "description": "`true` where an earlier request with this Idempotency-Key made the job.",
        "schema": {"type": "string", "enum": ["true"]},
    }
}


def begin(tenant: UUID, route: str, key: str, refusal: OctavoError | None) -> Mark | Answered:
    """The right to make a job, or the answer that there is already; raises IdempotencyInFlight.

    Where a new job has its `refusal`, that is raised; a job that is there is given all the same.
    """
    with transaction(tenant) as session:
        if refusal is None:
            return idempotency.begin(session, tenant, route, key)
        if found := idempotency.find(session, tenant, route, key):
            return found
    raise refusal


def give_up(mark: Mark) -> None:
    """Free the key of a request that came to nothing; one that was answered after all stays."""
    with suppress(DatabaseUnavailable), transaction(mark.tenant) as session:
        idempotency.give_up(session, mark)


async def kept(chunks: AsyncIterator[bytes], mark: Mark | None) -> AsyncIterator[bytes]:
    """The chunks of a body; while they come, the request's mark is renewed."""
    renewed_at = time.monotonic()
    async for chunk in chunks:
        yield chunk
        if mark and time.monotonic() - renewed_at > settings().idempotency_lease_seconds / 3:
            await run_in_threadpool(_renew, mark)
            renewed_at = time.monotonic()


def fingerprint(*facts: object) -> bytes:
    """What tells a request from another one; says nothing of a password that is in it."""
    secret = settings().secret_key.get_secret_value().encode()
    body = json.dumps(facts, sort_keys=True).encode()
    return hmac.digest(secret, b"idempotency:" + body, hashlib.sha256)


def replayed(session: Session, tenant: UUID, answered: Answered, asked: bytes) -> Job:
    """The job of an earlier request, where `asked` is the fingerprint of that one too.

    Raises IdempotencyMismatch, or JobDeleted.
    """
    if not hmac.compare_digest(answered.fingerprint, asked):
        raise IdempotencyMismatch
    return jobs.get(session, tenant, answered.job_id)


def _renew(mark: Mark) -> None:
    with suppress(DatabaseUnavailable), transaction(mark.tenant) as session:
        idempotency.renew(session, mark)
