"""A connection to Postgres that waits for the server only so long, and asks it only so often.

A server that is frozen, or lies behind a dead link, keeps its socket open, and its own
`statement_timeout` ends nothing then: libpq alone would wait for ever.

The driver would send BEGIN by itself and wait for its answer. Here it goes along with the first
statement; a statement that is a whole transaction needs none; and what is asked often is planned
once a connection (`shared/prepared.py`).
"""

from __future__ import annotations

import select
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import psycopg2
from psycopg2 import extensions

from shared import prepared

CONNECT_SECONDS = 2.0
GRACE_SECONDS = 1.0
"""How much later than the server's own limit the client's comes: the server says why."""

_SETTING_UP = (extensions.STATUS_SETUP, 20)  # 20 is CONNECTING, which psycopg2 does not export
_OPEN = (extensions.TRANSACTION_STATUS_INTRANS, extensions.TRANSACTION_STATUS_INERROR)
_EVENTS = {extensions.POLL_READ: select.POLLIN, extensions.POLL_WRITE: select.POLLOUT}


class Cursor(extensions.cursor):
    """What a Connection is asked through."""

    connection: Connection

    def execute(self, statement: Any, parameters: Any = None) -> None:
        """Ask, along with what is to go before it."""
        first = self.connection.first()
        if isinstance(statement, bytes):
            statement = statement.decode()
        if missing := prepared.definition(statement, self.connection.prepared):
            super().execute(missing.sql)
            self.connection.prepared.add(missing.name)
        super().execute("; ".join([*first, statement]), parameters)
        self.connection.begun()

    def executemany(self, statement: Any, parameters: Any) -> None:
        """Ask once for each of the parameters, in a transaction."""
        if first := self.connection.first(is_one=False):
            super().execute("; ".join(first))
        self.connection.begun()
        super().executemany(statement, parameters)


class Connection(extensions.connection):
    """A connection whose every answer comes in time, or ends it with an OperationalError."""

    answer_seconds: ClassVar[float] = 5.0 + GRACE_SECONDS

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.autocommit = True  # for the driver alone
        self.cursor_factory = Cursor
        self.prepared: set[str] = set()
        """The statements that were planned here."""
        self.begin_with([])

    def begin_with(self, first: Sequence[str], *, alone: bool = False, each: bool = False) -> None:
        """Let the next transaction begin with these statements, which go along with its own first.

        Its own is the only one where it is `alone`; or `each` is a transaction by itself, until this
        is called again.
        """
        self._first, self._alone, self._each = tuple(first), alone, each
        self._has_begun = False

    def first(self, *, is_one: bool = True) -> list[str]:
        """What goes before the statement that is asked now."""
        is_open = self.get_transaction_status() in _OPEN
        if self._alone or self._each:
            assert is_one, "it was to be one statement"
            assert self._each or not self._has_begun, "it was to be the only statement"
            assert not is_open, "a transaction is open"
            return [*self._first]
        return [*self._first] if is_open else ["BEGIN", *self._first]

    def begun(self) -> None:
        """It was asked."""
        self._has_begun = True
        if not self._each:
            self._first = ()

    def commit(self) -> None:
        """End the transaction, if one was begun."""
        self._end("COMMIT")

    def rollback(self) -> None:
        """Undo the transaction, if one was begun."""
        self._end("ROLLBACK")

    def _end(self, how: str) -> None:
        self.begin_with([])
        # One that is broken is not idle either: then the driver says so.
        if self.get_transaction_status() != extensions.TRANSACTION_STATUS_IDLE:
            with self.cursor() as cursor:
                extensions.cursor.execute(cursor, how)


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
