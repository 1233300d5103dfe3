"""Who is let in: a tenant over its quota is told so (429), and a platform over its own (503).

Looked at before a body is read, by what is known of the tenant and the backlog, a second old at
most; and once more, exactly, in the transaction that makes the job. Nothing is accepted and then
dropped.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.orm import Session

from api.rates import Bucket, Rate
from shared import backlog, quotas
from shared.backlog import Backlog
from shared.config import settings
from shared.db import transaction
from shared.errors import OctavoError, Overloaded, QuotaExceeded, TooManyInFlight
from shared.quotas import Standing

KNOWN_SECONDS = 1.0
"""How old what is known of a tenant, or of the backlog, may be."""

LONGEST_RETRY_SECONDS = 300
UNKNOWN_RETRY_SECONDS = 10
"""Where nobody can tell how fast the backlog shrinks."""


@dataclass
class _Known:
    standing: Standing
    bucket: Bucket
    at: float


class Admission:
    """What one gateway knows of its tenants and of the backlog. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tenants: dict[UUID, _Known] = {}
        self._uploads: Counter[UUID] = Counter()
        self._backlog = Backlog((), None)
        self._backlog_at = -KNOWN_SECONDS

    def knows(self, tenant: UUID) -> bool:
        """Whether `request` can tell without asking the database."""
        known = self._tenants.get(tenant)
        return known is not None and time.monotonic() - known.at <= KNOWN_SECONDS

    def look(self, tenant: UUID) -> None:
        """Learn how a tenant stands, where that is not known."""
        self._refreshed(tenant)

    def request(self, tenant: UUID) -> Rate:
        """Count a request of a tenant; the rate says whether it is one too many.

        Asks the database where what is known is old; nothing else here does before `settle`.
        """
        known = self._refreshed(tenant)
        with self._lock:
            return known.bucket.take(known.standing.quota.requests_per_second)

    def may_prompt(self, tenant: UUID) -> bool:
        """Whether a tenant may send prompts of its own."""
        return self._tenants[tenant].standing.custom_prompts

    def refusal(self, tenant: UUID, *, more_bytes: int = 0) -> OctavoError | None:
        """Why a tenant's new job would not be taken now: 429 or 503, or None."""
        standing = self._tenants[tenant].standing
        wait = self._wait_seconds(standing)
        if wait is not None and wait > settings().max_queue_seconds:
            detail = f"A new page would wait for about {round(wait)} seconds."
            too_long = wait - settings().max_queue_seconds
            return Overloaded(detail, retry_after_seconds=_jittered(too_long))
        return self._excess(standing, more_jobs=1, more_bytes=more_bytes)

    def settle(self, session: Session, tenant: UUID) -> None:
        """Raise where the job that this transaction makes is one too many; the last thing in it.

        A tenant that is far from its quota costs no query.
        """
        known = self._tenants[tenant]
        is_fresh = (
            time.monotonic() - known.at <= 2 * KNOWN_SECONDS
        )  # its upload may have taken long
        if is_fresh and known.standing.is_far_from_full():
            return
        if excess := self._excess(quotas.settled(session, tenant)):
            raise excess

    @contextmanager
    def uploading(self, tenant: UUID) -> Iterator[None]:
        """Take one of a tenant's places for uploads for the block; raises TooManyInFlight."""
        with self._lock:
            if self._uploads[tenant] >= settings().max_tenant_uploads:
                detail = f"At most {settings().max_tenant_uploads} uploads at once."
                raise TooManyInFlight(detail, retry_after_seconds=_jittered(2))
            self._uploads[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self._uploads[tenant] -= 1
                if not self._uploads[tenant]:
                    del self._uploads[tenant]

    def _excess(
        self, standing: Standing, *, more_jobs: int = 0, more_bytes: int = 0
    ) -> OctavoError | None:
        excess = standing.excess(more_jobs=more_jobs, more_bytes=more_bytes)
        if isinstance(excess, QuotaExceeded):
            excess.retry_after_seconds = _jittered(LONGEST_RETRY_SECONDS)
        elif excess is not None:
            excess.retry_after_seconds = _jittered(self._seconds_to_a_jobs_end(standing))
        return excess

    def _seconds_to_a_jobs_end(self, standing: Standing) -> float:
        """By the mean of the tenant's jobs, which are read side by side."""
        wait = self._wait_seconds(standing)
        return UNKNOWN_RETRY_SECONDS if wait is None else wait / max(1, standing.open_jobs)

    def _wait_seconds(self, standing: Standing) -> float | None:
        return self._backlog.wait_seconds(pages=standing.open_pages, weight=standing.weight)

    def _refreshed(self, tenant: UUID) -> _Known:
        """What is known of a tenant, looked up anew where that is old, and the backlog with it."""
        now = time.monotonic()
        with self._lock:
            known = self._tenants.get(tenant)
            if known is not None and now - known.at <= KNOWN_SECONDS:
                return known
            looks_at_backlog = now - self._backlog_at > KNOWN_SECONDS
            if looks_at_backlog:  # this thread does; the others go on with what is known
                self._backlog_at = now
            if known is not None:
                known.at = now
        with transaction(tenant) as session:
            standing = quotas.standing(session, tenant)
            if looks_at_backlog:
                self._backlog = backlog.read(session)
        with self._lock:
            bucket = Bucket(standing.quota.requests_per_second)
            known = self._tenants.setdefault(tenant, _Known(standing, bucket, now))
            known.standing = standing
        return known


def _jittered(seconds: float) -> int:
    """Whole seconds around so many, that those who are refused together do not return together."""
    spread = seconds * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
    return round(min(LONGEST_RETRY_SECONDS, max(1, spread)))
