"""What proves that a worker lives: that the process exists proves nothing.

Its heartbeat runs, its engine is not beyond help, and it takes messages where there are some.
Nothing here depends on whether database or broker answer: to start a worker again mends neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import structlog

from shared.config import settings
from shared.health import Health
from worker.engine.host import EngineHost
from worker.heartbeat import Heartbeat

ASK_BROKER_SECONDS = 2.0
QUIET_SECONDS = 5.0
"""Without a message for so long, the broker is asked whether there are some."""
BEAT_GRACE_SECONDS = 20.0
"""How much longer than three heartbeats one may take: it waits for a database that is away."""

log = structlog.get_logger()


class Consumption:
    """The proof that messages are taken: none waits for long while this worker has room.

    A consumer that lost its broker may come back and never ask for a message again; the process,
    its heartbeat and its connection all look well then.
    """

    def __init__(self, heartbeat: Heartbeat, count_waiting: Callable[[Sequence[str]], int]) -> None:
        """`count_waiting` says how many messages lie in queues; it may raise what it likes."""
        self._heartbeat, self._count_waiting = heartbeat, count_waiting
        self._began = self._asked_at = time.monotonic()
        self._starving_since: float | None = None

    def has_stopped(self) -> bool:
        """Whether messages have waited for `consume_seconds`, there was room, and none was taken."""
        now, last = time.monotonic(), self._heartbeat.message_at or self._began
        if self._heartbeat.hands >= self._heartbeat.slots or now - last < QUIET_SECONDS:
            self._starving_since = None
        elif now - self._asked_at >= ASK_BROKER_SECONDS:
            self._asked_at = now
            self._look(now)
        return (
            self._starving_since is not None
            and now - self._starving_since >= settings().consume_seconds
        )

    def _look(self, now: float) -> None:
        try:
            waiting = self._count_waiting(self._heartbeat.queues)
        except Exception as error:  # noqa: BLE001 - whatever a broker that is away looks like
            log.warning("broker_not_asked", detail=str(error))
            waiting = 0
        if not waiting:
            self._starving_since = None
        elif self._starving_since is None:
            self._starving_since = now


class Liveness:
    """The health of this worker, as it can tell by itself."""

    def __init__(
        self, heartbeat: Heartbeat, engine: EngineHost | None, consumption: Consumption
    ) -> None:
        self._heartbeat, self._engine, self._consumption = heartbeat, engine, consumption

    def health(self) -> Health:
        """How it is. An engine that stalls is its host's matter: that kills it."""
        now, interval = time.monotonic(), settings().heartbeat_seconds
        dead, unready = [], []
        if self._engine is not None and self._engine.broken:
            dead.append("the engine dies again and again")
        if now - self._heartbeat.tried_at > 3 * interval + BEAT_GRACE_SECONDS:
            dead.append("the heartbeat stands still")
        if self._consumption.has_stopped():
            dead.append(f"it took no message for {settings().consume_seconds:g} s, and some wait")
        if now - self._heartbeat.renewed_at > 3 * interval:
            unready.append("no lease could be renewed: the database is away")
        if self._heartbeat.draining:
            unready.append("it is ending")
        return Health(dead, unready)
