"""How dispatcher and sweeper tell that they go round: in the workers table, and in a file."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from importlib.metadata import version
from uuid import uuid4

from shared import workers
from shared.config import settings
from shared.db import transaction
from shared.errors import DatabaseUnavailable
from shared.health import Health, HealthFile

TELL_SECONDS = 2.0
LATE_SECONDS = 10.0
"""A process whose last full round is longer ago is not ready."""


class Pulse:
    """The rounds of one process. Beaten by the thread that makes the rounds."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._id = f"{kind}:{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._file = HealthFile(settings().health_file)
        self._full_at = time.monotonic()
        self._told_at: float | None = None

    def full_round(self) -> None:
        """All there was to do was done. Raises DatabaseUnavailable."""
        now = time.monotonic()
        if self._told_at is None or now - self._told_at >= TELL_SECONDS:
            with transaction(alone=True) as session:
                workers.rounded(session, self._id, kind=self._kind, version=version("octavo"))
            self._told_at = now
        self._full_at = now
        self._file.write(Health())

    def no_round(self) -> None:
        """It goes on, but could not do all: a part is away."""
        late = time.monotonic() - self._full_at > LATE_SECONDS
        self._file.write(Health(unready=["a part that it needs is away"] if late else []))

    def stands_by(self) -> None:
        """Another one makes the rounds."""
        self._full_at = time.monotonic()
        self._file.write(Health())

    def stop(self) -> None:
        """Leave the table."""
        with suppress(DatabaseUnavailable), transaction() as session:
            workers.leave(session, self._id)
