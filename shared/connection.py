"""A connection to Postgres that waits for the server only so long.

A server that is frozen, or lies behind a dead link, keeps its socket open, and its own
`statement_timeout` ends nothing then: libpq alone would wait for ever.
"""

from __future__ import annotations

import select
import time
from typing import ClassVar

import psycopg2
from psycopg2 import extensions

CONNECT_SECONDS = 2.0
GRACE_SECONDS = 1.0
"""How much later than the server's own limit the client's comes: the server says why."""

_SETTING_UP = (extensions.STATUS_SETUP, 20)  # 20 is CONNECTING, which psycopg2 does not export
_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}


class Connection(extensions.connection):
    """A connection whose every answer comes in time, or ends it with an OperationalError."""

    answer_seconds: ClassVar[float] = 5.0 + GRACE_SECONDS


def watch_answers(statement_seconds: float) -> None:
    """Let every Connection of this process wait a little longer than the server's own limit."""
    Connection.answer_seconds = statement_seconds + GRACE_SECONDS
    extensions.set_wait_callback(_wait)


def _wait(connection: extensions.connection) -> None:
    """Wait for the server; what is raised here closes the connection.

    Called by psycopg2 for whatever it sends. Connections of other kinds (a migration's) may wait.
    """
    ends_at = time.monotonic() + _patience_seconds(connection)
    while (state := connection.poll()) != extensions.POLL_OK:
        poll = select.poll()
        poll.register(connection.fileno(), _EVENTS[state])
        left = ends_at - time.monotonic()
        if left <= 0 or not poll.poll(None if left == float("inf") else 1000 * left):
            raise psycopg2.OperationalError("the server did not answer in time")


def _patience_seconds(connection: extensions.connection) -> float:
    if not isinstance(connection, Connection):
        return float("inf")
    is_new = connection.status in _SETTING_UP
    return CONNECT_SECONDS if is_new else connection.answer_seconds
