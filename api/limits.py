"""What one gateway takes at once: uploads, clients that wait or watch, and calls of the store."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar
from uuid import UUID

from anyio import CapacityLimiter, to_thread

from shared.config import settings
from shared.errors import DatabaseUnavailable, DependencyUnavailable, Overloaded, TooManyInFlight
from shared.storage import ObjectMissing

RETRY_AFTER_SECONDS = 5
LOOKS_AT_ONCE = 8
"""However many wait for jobs or watch pages: of the gateway's threads and connections no more are taken."""
READS_AT_ONCE = 16
"""However many read from a store that is slow: so many threads are theirs, beside those of others."""
COPIES_AT_ONCE = 4
"""However many documents are copied in the store: a large one takes ten threads of boto3's own."""

T = TypeVar("T")


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


class TenantPlaces:
    """A number of places for each tenant; used by one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._taken: Counter[UUID] = Counter()

    @contextmanager
    def taken(self, tenant: UUID, what: str) -> Iterator[None]:
        """Take a place for the block; raises TooManyInFlight where the tenant has none left."""
        if self._taken[tenant] >= self._most:
            detail = f"At most {self._most} {what} at once."
            raise TooManyInFlight(detail, retry_after_seconds=RETRY_AFTER_SECONDS)
        self._taken[tenant] += 1
        try:
            yield
        finally:
            self._taken[tenant] -= 1
            if not self._taken[tenant]:
                del self._taken[tenant]


class StoreGuard:
    """Refuses what needs the store at once while that is away, but for one now and then that looks.

    Else each would hold its place, and its client, until it has waited for a dead store in vain.
    Used by one event loop.
    """

    FAILURES = 3
    LOOK_SECONDS = 2

    def __init__(self) -> None:
        self._failures = 0  # one after another
        self._closed_until = 0.0

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Run the block, which uses the store; raises DependencyUnavailable where that is vain."""
        now = time.monotonic()
        if self._failures >= self.FAILURES:
            if now < self._closed_until:
                message = "The object store does not answer."
                raise DependencyUnavailable(message, retry_after_seconds=RETRY_AFTER_SECONDS)
            self._closed_until = now + self.LOOK_SECONDS
        try:
            yield
        except DatabaseUnavailable:
            raise
        except DependencyUnavailable:
            self._failures += 1
            self._closed_until = time.monotonic() + self.LOOK_SECONDS
            raise
        except ObjectMissing:  # so it answers
            self._failures = 0
            raise
        else:
            self._failures = 0


class Limits:
    """The places of one gateway, and its guard before the store."""

    def __init__(self) -> None:
        self.store = StoreGuard()
        self.uploads = Places(settings().max_uploads)
        self.waiters = Places(settings().max_waiters)
        self.tenant_waiters = TenantPlaces(settings().max_tenant_waiters)
        self.watchers = Places(settings().max_watchers)
        self.tenant_watchers = TenantPlaces(settings().max_tenant_watchers)
        self.looks = CapacityLimiter(LOOKS_AT_ONCE)
        self.reads = CapacityLimiter(READS_AT_ONCE)
        self.copies = CapacityLimiter(COPIES_AT_ONCE)

    async def in_store(self, call: Callable[[], T], places: CapacityLimiter) -> T:
        """What `call` has of the store, by a thread for which one of `places` is taken.

        Raises DependencyUnavailable, at once where the store is away.
        """
        async with places:
            with self.store.guarded():  # not before: it may go while a place is waited for
                return await to_thread.run_sync(call, limiter=CapacityLimiter(1))

    async def pieces(self, chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
        """The chunks of an object, each read by a thread for which one of `reads` is taken.

        No guard is before them: a download that goes on is let go on.
        """
        piece = partial(next, chunks, None)
        while (chunk := await to_thread.run_sync(piece, limiter=self.reads)) is not None:
            yield chunk
