"""API keys: how they are made, told apart, and checked.

    octavo_live_<8 characters of id><43 of secret><6 of checksum>

The prefix and the checksum let scanners find a leaked key, and let us refuse a mistyped one
without asking the database. Of the secret only an HMAC is stored, peppered with `secret_key`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import CursorResult, Row, select, text, update
from sqlalchemy.orm import Session

from shared import audit
from shared.audit import OPERATOR, Action, Actor
from shared.config import settings
from shared.db import enter
from shared.errors import NotFound, Unauthenticated
from shared.models import NOW, ApiKey, Tenant

SCOPES = ("jobs:write", "jobs:read", "jobs:delete")
USE_NOTED_EVERY = timedelta(minutes=1)

_KEY = re.compile(
    r"octavo_live_(?P<id>[a-z0-9]{8})_(?P<secret>[A-Za-z0-9_-]{43})(?P<check>[A-Za-z0-9_-]{6})"
)
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


@dataclass(frozen=True)
class Caller:
    """Who asks: a tenant, by one of its keys."""

    tenant: UUID
    key_id: str
    scopes: frozenset[str]


def create_tenant(session: Session, name: str) -> UUID:
    """A new tenant's id."""
    tenant = Tenant(id=uuid4(), name=name)
    session.add(tenant)
    session.flush()
    return tenant.id


def find_tenant(session: Session, name: str) -> UUID | None:
    """The id of the tenant of that name."""
    return session.scalars(select(Tenant.id).where(Tenant.name == name)).one_or_none()


def create(
    session: Session,
    tenant: UUID,
    *,
    label: str = "",
    scopes: tuple[str, ...] = SCOPES,
    expires_at: datetime | None = None,
) -> str:
    """A new key of a tenant, whole; it is shown this once and stored nowhere."""
    key_id = "".join(secrets.choice(_ID_ALPHABET) for _ in range(8))
    secret = secrets.token_urlsafe(32)
    session.add(
        ApiKey(
            id=key_id,
            tenant=tenant,
            secret_hash=_hash(secret),
            label=label,
            scopes=list(scopes),
            expires_at=expires_at,
        )
    )
    audit.record(session, tenant, OPERATOR, Action.KEY_CREATED, key_id, scopes=list(scopes))
    return f"octavo_live_{key_id}_{secret}{_checksum(key_id, secret)}"


def revoke(session: Session, key_id: str) -> None:
    """End a key at once; raises NotFound."""
    statement = update(ApiKey).where(ApiKey.id == key_id).values(revoked_at=NOW)
    tenant = session.scalars(statement.returning(ApiKey.tenant)).one_or_none()
    if tenant is None:
        raise NotFound(f"There is no key {key_id}.")
    audit.record(session, tenant, OPERATOR, Action.KEY_REVOKED, key_id)


# Whose it is is not known yet: the one door through row-level security that takes a key's id.
_FIND = text(
    "SELECT id, tenant, secret_hash, scopes, expires_at, revoked_at, last_used_at, now() AS now "
    "FROM octavo_find_key(:id)"
)


def id_of(key: str) -> str | None:
    """The id in what looks like a key; None where it does not."""
    match = _KEY.fullmatch(key)
    return match["id"] if match else None


def authenticate(session: Session, key: str) -> Caller:
    """Whose key this is; raises Unauthenticated for one that is malformed, unknown or over."""
    match = _KEY.fullmatch(key)
    if match is None or not _same(match["check"], _checksum(match["id"], match["secret"])):
        raise Unauthenticated("This is no API key: a character is wrong or missing.")
    stored = session.execute(_FIND, {"id": match["id"]}).one_or_none()
    # An unknown id costs the same comparison as a wrong secret, so that time does not tell.
    expected = stored.secret_hash if stored is not None else bytes(hashlib.sha256().digest_size)
    if not hmac.compare_digest(_hash(match["secret"]), expected) or stored is None:
        raise Unauthenticated("This API key is not known.")
    _refuse_ended(stored)
    caller = Caller(stored.tenant, stored.id, frozenset(stored.scopes))
    if stored.last_used_at is None or stored.last_used_at < stored.now - USE_NOTED_EVERY:
        _note_use(session, caller, stored.last_used_at)
    return caller


def check(session: Session, key_id: str) -> None:
    """Raise Unauthenticated where the key of that id, which was right, is over by now."""
    stored = session.execute(_FIND, {"id": key_id}).one_or_none()
    if stored is None:
        raise Unauthenticated("This API key is not known.")
    _refuse_ended(stored)


def _refuse_ended(stored: Row[Any]) -> None:
    expires_at = stored.expires_at
    if stored.revoked_at is not None or (expires_at is not None and expires_at < stored.now):
        raise Unauthenticated("This API key was revoked or has expired.")


_NOTE_USE = text(
    "UPDATE api_keys SET last_used_at = now() "
    "WHERE id = :id AND last_used_at IS NOT DISTINCT FROM CAST(:before AS timestamptz)"
)


def _note_use(session: Session, caller: Caller, before: datetime | None) -> None:
    enter(session, caller.tenant)
    noted = session.execute(_NOTE_USE, {"id": caller.key_id, "before": before})
    assert isinstance(noted, CursorResult)
    if before is None and noted.rowcount:
        key = caller.key_id
        audit.record(session, caller.tenant, Actor(key), Action.KEY_FIRST_USED, key)


def _hash(secret: str) -> bytes:
    pepper = settings().secret_key.get_secret_value().encode()
    return hmac.digest(pepper, b"api-key:" + secret.encode(), hashlib.sha256)


def _checksum(key_id: str, secret: str) -> str:
    crc = zlib.crc32(f"{key_id}{secret}".encode())
    return base64.urlsafe_b64encode(crc.to_bytes(4)).decode().rstrip("=")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
