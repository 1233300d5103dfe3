"""How fast a tenant may ask: a token bucket for each, in this process.

Not in Postgres, where it would make a write of every poll; nor in the broker, which the gateway
must not need. So several gateways allow several times the rate. What has to be exact, the jobs,
pages and bytes of a tenant, is counted in Postgres.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

BURST_SECONDS = 2
"""How much of its rate a tenant that was quiet may use at once."""


@dataclass(frozen=True)
class Rate:
    """How one request found the bucket of its tenant."""

    limit: int  # requests, when full
    remaining: int
    reset_seconds: int  # until it is full again
    retry_after_seconds: int | None  # None: the request was allowed

    def headers(self) -> dict[str, str]:
        """What every answer tells of it."""
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.reset_seconds),
        }


class Bucket:
    """Tokens that come back at a rate, up to a burst; not safe to use from several threads."""

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._tokens = self._burst
        self._at = time.monotonic()

    @property
    def _burst(self) -> float:
        return max(1.0, self._per_second * BURST_SECONDS)

    def take(self, per_second: float) -> Rate:
        """Take a token, if there is one, from a bucket that fills at `per_second`."""
        now = time.monotonic()
        self._per_second = per_second
        self._tokens = min(self._burst, self._tokens + (now - self._at) * per_second)
        self._at = now
        is_allowed = self._tokens >= 1
        if is_allowed:
            self._tokens -= 1
        return Rate(
            limit=math.floor(self._burst),
            remaining=math.floor(self._tokens),
            reset_seconds=math.ceil((self._burst - self._tokens) / per_second),
            retry_after_seconds=None
            if is_allowed
            else max(1, math.ceil((1 - self._tokens) / per_second)),
        )
