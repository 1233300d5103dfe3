"""How long work stays with a dead worker: from a kill -9 to the next claim, as the rows tell."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

LOOK_SECONDS = 0.05

_HELD = text("SELECT id, attempt, kind FROM work WHERE status = 'running' AND worker LIKE :worker")
_STILL_HELD = text(
    """
    SELECT w.id, w.status FROM work w JOIN unnest(:ids, :attempts) AS held(id, attempt)
      ON w.id = held.id AND w.attempt = held.attempt
    WHERE w.status IN ('running', 'queued')
    """
)
_DEADLOCKS = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


@dataclass(frozen=True)
class Recovered:
    """All that a killed worker held was claimed again, or had ended.

    The rest is for whoever asks why it took so long, and goes through the logs.
    """

    seconds: float
    held: int
    is_quiet: bool  # nothing else went wrong meanwhile
    killed_at: str  # as logs tell the time
    kinds: list[str]  # of work
    rescued_seconds: float  # until none of it was the dead worker's any more
    last: list[int]  # ids of what waited longest


@dataclass(frozen=True)
class _Kill:
    at: float  # on the monotonic clock
    told_at: str
    is_quiet: bool


@dataclass
class _Pending:
    kill: _Kill
    held: dict[int, int]  # attempts by ids
    kinds: list[str]
    left: list[int]  # at the last look
    rescued_seconds: float | None = None


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
        self._pending: list[_Pending] = []
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
            self._killed[pid] = _Kill(time.monotonic(), datetime.now(UTC).isoformat(), is_quiet)

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
        self._pending = [each for each in self._pending if not self._is_recovered(connection, each)]
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
                held = {row.id: row.attempt for row in rows}
                kinds = sorted({row.kind for row in rows})
                self._pending.append(_Pending(kill, held, kinds, left=list(held)))
            with self._lock:
                del self._killed[pid]

    def _is_recovered(self, connection: Connection, pending: _Pending) -> bool:
        values = {"ids": list(pending.held), "attempts": list(pending.held.values())}
        rows = connection.execute(_STILL_HELD, values).all()
        kill, seconds = pending.kill, time.monotonic() - pending.kill.at
        if pending.rescued_seconds is None and all(row.status == "queued" for row in rows):
            pending.rescued_seconds = seconds
        if rows:
            pending.left = [row.id for row in rows]
            return False
        assert pending.rescued_seconds is not None
        self.recovered.append(
            Recovered(
                seconds=seconds,
                held=len(pending.held),
                is_quiet=kill.is_quiet,
                killed_at=kill.told_at,
                kinds=pending.kinds,
                rescued_seconds=pending.rescued_seconds,
                last=pending.left,
            )
        )
        return True
