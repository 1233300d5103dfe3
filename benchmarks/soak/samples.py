"""What each process of a platform holds, looked at every few seconds."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from deploy.local import Platform

MB = 1024**2

_CONNECTIONS = text("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")

Series = list[tuple[float, float]]
"""Seconds on the monotonic clock, and a value."""


class Samples:
    """Series by process: memory in MB (resident, and proportional), and open descriptors.

    A platform's process has its name; its lasting children are called after it. Children that come
    and go, such as the renderers and the backends of Postgres, are summed as one.
    """

    def __init__(self, platform: Platform, *, every_seconds: float) -> None:
        self.resident: dict[str, Series] = defaultdict(list)
        self.proportional: dict[str, Series] = defaultdict(list)
        self.descriptors: dict[str, Series] = defaultdict(list)
        self.connections: Series = []
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
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for each in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                held = _held(each)
                of_name = sums[_named(name, each, process.pid)]
                of_name[:] = [before + more for before, more in zip(of_name, held, strict=True)]
        for key, (resident, proportional, descriptors) in sums.items():
            self.resident[key].append((now, resident))
            self.proportional[key].append((now, proportional))
            self.descriptors[key].append((now, descriptors))


def _held(process: psutil.Process) -> tuple[float, float, float]:
    with process.oneshot():
        memory = process.memory_full_info()
        return memory.rss / MB, memory.pss / MB, float(process.num_fds())


def _named(owner: str, process: psutil.Process, owner_pid: int) -> str:
    if process.pid == owner_pid:
        return owner
    command = " ".join(process.cmdline())
    if "worker.engine.child" in command:
        return f"{owner}: engine"
    if "zygote" in command and process.ppid() == owner_pid:
        return f"{owner}: zygote"
    return f"{owner}: children"
