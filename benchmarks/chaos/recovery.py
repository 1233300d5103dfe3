"""How long work stays with a dead worker: from a kill -9 to the next claim, as the rows tell."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

LOOK_SECONDS = 0.05

_HELD = text("SELECT id, attempt FROM work WHERE status = 'running' AND worker LIKE :worker")
_STILL_HELD = text(
    """
    SELECT w.id FROM work w JOIN unnest(:ids, :attempts) AS held(id, attempt)
      ON w.id = held.id AND w.attempt = held.attempt
    WHERE w.status IN ('running', 'queued')
    """
)
_DEADLOCKS = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


@dataclass(frozen=True)
class Recovered:
    """All that a killed worker held was claimed again, or had ended."""

    seconds: float
    held: int
    is_quiet: bool  # nothing else went wrong meanwhile


@dataclass(frozen=True)
class _Kill:
    at: float  # on the monotonic clock
    is_quiet: bool


class Watch:
    """Looks at the rows every now and then, through every outage of the database.

    Deadlocks are counted here too: Postgres forgets its own count when it dies.
    """

    def __init__(self, database_url: str) -> None:
        self.recovered: list[Recovered] = []
        self.deadlocks = 0
        self._engine: Engine = create_engine(
            database_url, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 2}
        )
        self._killed: dict[int, _Kill] = {}  # by the pids whose rows are still to be looked up
        self._pending: list[tuple[_Kill, dict[int, int]]] = []
        self._lock = threading.Lock()
        self._seen_deadlocks = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what is not recovered by then is not counted, and shows as stuck."""
        self._ended.set()
        self._thread.join()
        self._engine.dispose()

    def killed(self, pid: int, is_quiet: bool) -> None:  # noqa: FBT001 - said by name below
        """Hear of a worker that was just killed."""
        with self._lock:
            self._killed[pid] = _Kill(time.monotonic(), is_quiet)

    @property
    def is_waiting(self) -> bool:
        """Whether some work is still with a dead worker."""
        return bool(self._killed or self._pending)

    def _run(self) -> None:
        while not self._ended.wait(LOOK_SECONDS):
            with suppress(DBAPIError), self._engine.connect() as connection:
                while not self._ended.wait(LOOK_SECONDS):
                    self._look(connection)

    def _look(self, connection: Connection) -> None:
        self._look_up(connection)
        self._pending = [
            each for each in self._pending if not self._is_recovered(connection, *each)
        ]
        deadlocks = connection.execute(_DEADLOCKS).scalar_one()
        self.deadlocks += max(0, deadlocks - self._seen_deadlocks)
        self._seen_deadlocks = deadlocks

    def _look_up(self, connection: Connection) -> None:
        """Find what the killed workers held."""
        with self._lock:
            killed = dict(self._killed)
        for pid, kill in killed.items():
            rows = connection.execute(_HELD, {"worker": f"%:{pid}:%"}).all()
            if rows:
                self._pending.append((kill, {row.id: row.attempt for row in rows}))
            with self._lock:
                del self._killed[pid]

    def _is_recovered(self, connection: Connection, kill: _Kill, held: dict[int, int]) -> bool:
        values = {"ids": list(held), "attempts": list(held.values())}
        if connection.execute(_STILL_HELD, values).first() is not None:
            return False
        seconds = time.monotonic() - kill.at
        self.recovered.append(Recovered(seconds, len(held), kill.is_quiet))
        return True
