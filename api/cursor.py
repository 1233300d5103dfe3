"""Cursors: where a list goes on. Opaque and signed, so that they say nothing and bend to nobody."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import datetime
from uuid import UUID

from shared.config import settings
from shared.errors import InvalidOptions

SIGNATURE_BYTES = 8


def of_job(created_at: datetime, job_id: UUID) -> str:
    """The cursor after a job in a list of jobs."""
    return _signed([created_at.isoformat(), job_id.hex])


def to_job(cursor: str) -> tuple[datetime, UUID]:
    """What `of_job` was given; raises InvalidOptions for what it did not make."""
    created_at, job_id = _checked(cursor)
    return datetime.fromisoformat(created_at), UUID(hex=job_id)


def _signed(value: list[str]) -> str:
    body = json.dumps(value).encode()
    return base64.urlsafe_b64encode(_signature(body) + body).decode().rstrip("=")


def _checked(cursor: str) -> list[str]:
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError as error:
        raise InvalidOptions("cursor: not one of ours") from error
    signature, body = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(body)):
        raise InvalidOptions("cursor: not one of ours")
    value: list[str] = json.loads(body)
    return value


def _signature(body: bytes) -> bytes:
    secret = settings().secret_key.get_secret_value().encode()
    return hmac.digest(secret, b"cursor:" + body, hashlib.sha256)[:SIGNATURE_BYTES]
