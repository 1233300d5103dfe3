"""Guessing keys does not pay: failed logins are counted by address and by key id.

Each may fail so often a minute; after that it is told to wait. A right key passes all the same:
whoever guesses from behind the same proxy, or with a known id, shuts nobody out. So keys of those
who are to wait are looked at still, but few side by side, whatever they cost; one that was right
here before needs no such place. Counts are kept by each gateway for itself, in bounded memory.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address, ip_network

import structlog

from shared import keys
from shared.errors import TooManyFailedLogins, Unauthenticated

REMEMBERED = 10_000
"""Addresses, key ids and good keys that are remembered, each; beyond, the oldest are forgotten."""
SUSPECTS_AT_ONCE = 2
"""Keys that are looked at of those who are to wait; of the gateway's threads no more are taken."""
BUSY_SECONDS = 1

log = structlog.get_logger()


class _Counts:
    """A bucket of tokens for each of many names; a failure takes one, and they come back."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most, self._clock = most, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def seconds_to_wait(self, name: str) -> float:
        """How long until `name` may try again; 0 where it may now."""
        return max(0.0, (1 - self._tokens(name)) * 60 / self._most)

    def count(self, name: str) -> None:
        """Note a failure of `name`."""
        self._buckets[name] = (max(0.0, self._tokens(name) - 1), self._clock())
        self._buckets.move_to_end(name)
        if len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)

    def _tokens(self, name: str) -> float:
        tokens, at = self._buckets.get(name, (self._most, 0.0))
        return min(self._most, tokens + (self._clock() - at) * self._most / 60)


class FailedLogins:
    """The failures of late at one gateway; used by many threads."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`most` is how often an address, or a key id, may fail in a minute."""
        self._addresses, self._key_ids = _Counts(most, clock), _Counts(most, clock)
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self._suspects = 0
        self._lock = threading.Lock()

    @contextmanager
    def attempt(self, address: str | None, key: str) -> Iterator[None]:
        """Count the block where it raises Unauthenticated.

        Raises TooManyFailedLogins in its place where that was one too many, or before the block
        where too many of such are looked at just now.
        """
        digest = hashlib.sha256(key.encode()).digest()
        network, key_id = _network(address), keys.id_of(key)
        with self._lock:
            wait = 0.0 if digest in self._good else self._seconds_to_wait(network, key_id)
        try:
            with self._place(wait):
                yield
        except Unauthenticated as error:
            with self._lock:
                self._good.pop(digest, None)
                self._addresses.count(network)
                if key_id is not None:
                    self._key_ids.count(key_id)
            log.warning("login_failed", address=address, key_id=key_id)
            if wait:
                raise TooManyFailedLogins(retry_after_seconds=math.ceil(wait)) from error
            raise
        with self._lock:
            self._good[digest] = None
            self._good.move_to_end(digest)
            if len(self._good) > REMEMBERED:
                self._good.popitem(last=False)

    def _seconds_to_wait(self, network: str, key_id: str | None) -> float:
        wait = self._addresses.seconds_to_wait(network)
        return wait if key_id is None else max(wait, self._key_ids.seconds_to_wait(key_id))

    @contextmanager
    def _place(self, wait: float) -> Iterator[None]:
        """One of the few places for the block, where its key is of one who is to wait."""
        if not wait:
            yield
            return
        with self._lock:
            if self._suspects == SUSPECTS_AT_ONCE:
                raise TooManyFailedLogins(retry_after_seconds=BUSY_SECONDS)
            self._suspects += 1
        try:
            yield
        finally:
            with self._lock:
                self._suspects -= 1


def _network(address: str | None) -> str:
    """What is counted as one address: of IPv6 the /64, which is one customer's."""
    try:
        parsed = ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(parsed, IPv6Address):
        return str(ip_network((parsed, 64), strict=False))
    return str(parsed)
