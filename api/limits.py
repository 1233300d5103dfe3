"""What one gateway takes at once: uploads in progress, and clients that wait for a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from shared.config import settings
from shared.errors import Overloaded

RETRY_AFTER_SECONDS = 5


class Places:
    """A number of places that are taken and given back; used by one event loop."""

    def __init__(self, most: int) -> None:
        self._free = most

    @contextmanager
    def taken(self, what: str) -> Iterator[None]:
        """Take a place for the block; raises Overloaded where none is free."""
        if not self._free:
            raise Overloaded(f"Too many {what} at once.", retry_after_seconds=RETRY_AFTER_SECONDS)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


class Limits:
    """The places of one gateway."""

    def __init__(self) -> None:
        self.uploads = Places(settings().max_uploads)
        self.waiters = Places(settings().max_waiters)
