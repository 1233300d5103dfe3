"""Whether this gateway can serve: asked of Postgres now and then, and remembered in between.

Broker and store are not asked: an outage of a part that all gateways share must not take them all
away at once.
"""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor

from shared import schema
from shared.db import own_transactions
from shared.errors import DatabaseUnavailable, DependencyUnavailable, Overloaded

ANSWER_SECONDS = 1.0
REMEMBERED_SECONDS = (0.8, 1.2)
"""Drawn anew each time, so that the probes of many gateways do not fall together."""
RETRY_AFTER_SECONDS = 2


class Readiness:
    """The last answer of Postgres, and for how long it counts. Used by one event loop."""

    def __init__(self) -> None:
        self._transaction = own_transactions()  # a crowd of requests is no outage
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="readiness")
        self._question: asyncio.Future[str | None] | None = None
        self._problem: DependencyUnavailable | None = None
        self._counts_until = 0.0

    async def check(self, *, draining: bool) -> None:
        """Return where requests can be served; raises Overloaded or DependencyUnavailable."""
        if draining:
            raise Overloaded("The gateway is ending.", retry_after_seconds=RETRY_AFTER_SECONDS)
        if time.monotonic() >= self._counts_until:
            self._problem = await self._ask()
            self._counts_until = time.monotonic() + random.uniform(*REMEMBERED_SECONDS)  # noqa: S311 - no secret
        if self._problem is not None:
            raise self._problem

    async def _ask(self) -> DependencyUnavailable | None:
        if self._question is None:  # else one that is late is still out: a second would be, too
            loop = asyncio.get_running_loop()
            self._question = loop.run_in_executor(self._thread, self._revision)
        question = self._question
        answered, _ = await asyncio.wait([question], timeout=ANSWER_SECONDS)
        if not answered:
            return DatabaseUnavailable(
                f"The database did not answer within {ANSWER_SECONDS:g} s.",
                retry_after_seconds=RETRY_AFTER_SECONDS,
            )
        self._question = None
        try:
            revision = question.result()
        except DependencyUnavailable as error:
            return error
        return _too_old(revision) if schema.is_behind(revision) else None

    def _revision(self) -> str | None:
        with self._transaction() as session:
            return schema.current(session)


def _too_old(revision: str | None) -> DependencyUnavailable:
    return DependencyUnavailable(
        f"The database's schema is at {revision or 'nothing'}, and this version needs "
        f"{schema.REVISION}: octavo migrate brings it there.",
        retry_after_seconds=RETRY_AFTER_SECONDS,
    )
