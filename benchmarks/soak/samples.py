"""What each process of a platform holds, looked at every few seconds."""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from benchmarks.soak.held import GONE, Held, Process
from deploy.local import Platform

_CONNECTIONS = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
_SESSION = re.compile(r"postgres: (\S+) \S+ [\d.]+\(\d+\)")
"""How a backend of Postgres titles itself: role, database, and where its client is."""
_OTHER_TITLE = re.compile(r"postgres: [a-z ]*[a-z]")


class Samples:
    """What each process held, by the moment, and how many connections Postgres had.

    A platform's process has its name; its children are called after it, those of Postgres by what
    they do, or as whom they serve.
    """

    def __init__(self, platform: Platform, *, every_seconds: float) -> None:
        self.held: dict[Process, list[tuple[float, Held]]] = defaultdict(list)
        self.connections: list[tuple[float, float]] = []
        self._platform = platform
        self._every_seconds = every_seconds
        self._engine = create_engine(platform.servers.database, isolation_level="AUTOCOMMIT")

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Look while the block runs."""
        ended = threading.Event()
        looking = threading.Thread(target=self._look_on, args=(ended,), name="samples")
        looking.start()
        try:
            yield
        finally:
            ended.set()
            looking.join()
            self._engine.dispose()

    def _look_on(self, ended: threading.Event) -> None:
        while not ended.wait(self._every_seconds):
            now = time.monotonic()
            for name, pid in self._platform.pids().items():
                with suppress(psutil.NoSuchProcess):
                    self._look_at(now, name, psutil.Process(pid))
            with suppress(DBAPIError), self._engine.connect() as connection:
                self.connections.append((now, connection.execute(_CONNECTIONS).scalar_one()))

    def _look_at(self, now: float, name: str, process: psutil.Process) -> None:
        for each in (process, *process.children(recursive=True)):
            with suppress(*GONE):
                known, held = Process(_named(name, each, process.pid), each.pid), Held.by(each)
                self.held[known].append((now, held))


def _named(owner: str, process: psutil.Process, owner_pid: int) -> str:
    if process.pid == owner_pid:
        return owner
    command = " ".join(process.cmdline())
    if session := _SESSION.match(command):
        return f"postgres: sessions of {session[1]}"
    if other := _OTHER_TITLE.match(command):
        return other[0]
    if "worker.engine.child" in command:
        return f"{owner}: engine"
    if "zygote" in command and process.ppid() == owner_pid:
        return f"{owner}: zygote"
    return f"{owner}: children"
