"""Secrets of tenants that a row must keep for a while: sealed with the platform's own secret."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet

from shared.config import settings


def seal(secret: str) -> bytes:
    """`secret`, readable only with `secret_key`."""
    return _fernet().encrypt(secret.encode())


def unseal(sealed: bytes) -> str:
    """What `seal` was given."""
    return _fernet().decrypt(sealed).decode()


def _fernet() -> Fernet:
    root = settings().secret_key.get_secret_value().encode()
    derived = hashlib.sha256(b"octavo-seal:" + root).digest()
    return Fernet(base64.urlsafe_b64encode(derived))
