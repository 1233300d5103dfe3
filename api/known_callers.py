"""Callers whose keys were checked a moment ago: a burst of requests asks the database once."""

from __future__ import annotations

import hashlib
import time

from shared.keys import Caller

KEPT_SECONDS = 1.0
"""How long a revoked key may still pass."""
MOST = 1_000


class KnownCallers:
    """What keys said of their callers, each for a second; used by one event loop."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Caller, float]] = {}

    def find(self, key: str) -> Caller | None:
        """Who calls with this key, where it was checked within the last second."""
        caller, until = self._kept.get(_digest(key), (None, 0.0))
        return caller if time.monotonic() < until else None

    def keep(self, key: str, caller: Caller) -> None:
        """Remember whose key this is; its check has just passed."""
        if len(self._kept) >= MOST:
            self._kept.clear()
        self._kept[_digest(key)] = caller, time.monotonic() + KEPT_SECONDS


def _digest(key: str) -> bytes:
    """What is remembered instead of the key, which is a secret."""
    return hashlib.sha256(key.encode()).digest()
