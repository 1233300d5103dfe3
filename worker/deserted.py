"""Fallback engines without a worker: which, and since when, as one sweeper has seen it."""

from __future__ import annotations

import time

from sqlalchemy.orm import Session

from shared import workers
from shared.config import settings
from shared.work import recognise_queue

PATIENCE_SECONDS = 300.0
"""More than a worker takes to be restarted, its weights loaded anew."""


class Deserted:
    """The queues of fallback engines that nobody has served for a while."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def queues(self, session: Session) -> list[str]:
        """Those that have had no live worker for PATIENCE_SECONDS, each time that this asked."""
        live, now = workers.live_slots(session), time.monotonic()
        empty = {recognise_queue(name) for name in settings().fallback_engines} - live.keys()
        self._since = {queue: self._since.get(queue, now) for queue in empty}
        return [queue for queue, since in self._since.items() if now - since >= PATIENCE_SECONDS]
