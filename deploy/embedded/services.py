"""Postgres, Valkey and SeaweedFS of one directory, from pip packages alone.

Each server is a plain child process on 127.0.0.1: no container, no service manager, nothing
fetched at run time.

    with Services(Path("var")) as services:         # start, and stop at the end
        create_engine(services.urls.database)

The directory, on a local disk, holds `services.json` (ports and passwords, for its owner only)
and each server's data, log and lock. To begin anew, stop, then delete the whole directory:
Postgres keeps the password it was first given.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from deploy.embedded.errors import PortTaken, ServiceError
from deploy.embedded.file_lock import locked
from deploy.embedded.postgres import Postgres
from deploy.embedded.seaweedfs import BUCKET, SeaweedFS
from deploy.embedded.settings import Settings
from deploy.embedded.valkey import Valkey

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from deploy.embedded.service import Service


PORT_TRIES = 3


@dataclass(frozen=True)
class Urls:
    """Where clients find the servers; the first two hold passwords."""

    database: str
    broker: str
    store: str


class Services:
    """The three servers of one directory, started, used and stopped together."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self.directory.mkdir(parents=True, exist_ok=True)
        # Root's Postgres is another user's, who must get through to its own directory.
        self.directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
        self._lock = self.directory / "lock"  # one start or stop at a time, across processes
        self._settings_path = self.directory / "services.json"
        with locked(self._lock):
            self._settings = Settings.load(self._settings_path)
            self._settings.save(self._settings_path)
        self._postgres = Postgres(self.directory, self._settings)
        self._valkey = Valkey(self.directory, self._settings)
        self._seaweedfs = SeaweedFS(self.directory, self._settings)

    def __enter__(self) -> Self:
        """Start what does not run."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all, whoever started them."""
        self.stop()

    @property
    def urls(self) -> Urls:
        """Where clients find the servers; ServiceError where they were never started."""
        if not all(service.ports for service in self._all):
            raise ServiceError(f"nothing was ever started in {self.directory}")
        return Urls(self._postgres.url, self._valkey.url, self._seaweedfs.url)

    def environment(self) -> dict[str, str]:
        """The settings that point a process at these servers, as the database's owner."""
        urls = self.urls
        return {
            "OCTAVO_DATABASE_URL": urls.database,
            "OCTAVO_BROKER_URL": urls.broker,
            "OCTAVO_STORE_URL": urls.store,
            "OCTAVO_STORE_BUCKET": BUCKET,
            "OCTAVO_STORE_ACCESS_KEY": self._settings.store_access_key,
            "OCTAVO_STORE_SECRET_KEY": self._settings.store_secret_key,
            "OCTAVO_SECRET_KEY": self._settings.secret_key,
        }

    @property
    def role_passwords(self) -> dict[str, str]:
        """The passwords of the database's roles, by the role's name."""
        return dict(self._settings.role_passwords)

    def pids(self) -> dict[str, int]:
        """The process ids of those that run, by name."""
        found = {service.name: service.pid for service in self._all}
        return {name: pid for name, pid in found.items() if pid is not None}

    def dead(self) -> list[str]:
        """The names of the servers that do not run."""
        return [service.name for service in self._all if not service.is_running()]

    def await_ready(self, *, timeout_seconds: float) -> None:
        """Return when all can be used, whoever starts them; ServiceError past the timeout."""
        deadline = time.monotonic() + timeout_seconds
        for service in self._all:
            service.await_use(deadline)

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Start what does not run and return when all can be used.

        If one cannot, ServiceError says why, and what was started is stopped. A port that another
        directory's start took in between is not why: others are chosen.
        """
        deadline = time.monotonic() + timeout_seconds
        with locked(self._lock):
            for tries_left in reversed(range(PORT_TRIES)):
                try:
                    self._start(deadline)
                except PortTaken:
                    if not tries_left:
                        raise
                else:
                    return

    def restart_dead(self) -> list[str]:
        """Start those that died and return their names; their addresses stay if they can."""
        dead = self.dead()
        if dead:
            self.start()
        return dead

    def stop(self, *, timeout_seconds: float = 20) -> None:
        """End all that run, whoever started them; past the timeout they are killed.

        A kill costs what Valkey took in its last second, nothing else.
        """
        with locked(self._lock):
            _end(self._all, timeout_seconds=timeout_seconds)

    @property
    def _all(self) -> tuple[Service, ...]:
        return self._postgres, self._valkey, self._seaweedfs

    def _start(self, deadline: float) -> None:
        self._choose_ports()
        absent = [service for service in self._all if not service.is_running()]
        try:
            for service in self._all:
                service.launch()
            for service in self._all:
                service.await_ready(deadline)
        except BaseException:
            _end(absent, timeout_seconds=5)
            raise

    def _choose_ports(self) -> None:
        """Keep the remembered ports where they are free or our own, so that addresses last."""
        self._settings.ports = Settings.load(self._settings_path).ports  # another may have started
        for service in self._all:
            if not service.is_running():
                service.choose_ports()
        self._settings.save(self._settings_path)


def _end(services: Sequence[Service], *, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    for service in services:
        service.send(service.stop_signal)
    for service in services:
        service.await_end(deadline)
        service.release_ports()
