"""Postgres: whether it can be reached and used, and whether it is as the platform needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg2
from sqlalchemy.engine import make_url

from deploy.doctor.finding import Finding, failure, warning, well
from shared import schema
from shared.config import Settings
from shared.connection import Connection, watch_answers

OLDEST_VERSION = 15
SPARE_CONNECTIONS = 20
OLD_TRANSACTION_SECONDS = 300

_MENDS = {
    "password authentication failed": "put the right user and password into OCTAVO_DATABASE_URL",
    "does not exist": "create the database and its user, or name the right ones in "
    "OCTAVO_DATABASE_URL",
    "too many": "raise max_connections, or let fewer processes run",
    "remaining connection slots": "raise max_connections, or let fewer processes run",
    "starting up": "wait: it is starting",
}
_START = "start Postgres, and look at host and port in OCTAVO_DATABASE_URL"


def connect(settings: Settings) -> Connection:
    """A connection that waits five seconds for an answer; raises psycopg2.Error."""
    watch_answers(5)
    url = make_url(settings.database_url.get_secret_value()).set(drivername="postgresql")
    return psycopg2.connect(
        url.render_as_string(hide_password=False), connection_factory=Connection
    )


def check(settings: Settings) -> Iterator[Finding]:
    """All that can be asked of the server itself."""
    try:
        opened = connect(settings)
    except psycopg2.Error as error:
        said = " ".join(str(error).split()) or "it does not answer"
        mends = (mend for sign, mend in _MENDS.items() if sign in said)
        yield failure("postgres", said, mend=next(mends, _START))
        return
    with closing(opened):
        yield _version(opened)
        yield _schema(opened)
        yield _connections(opened)
        yield _durability(opened)
        yield _transactions(opened)


def ask(opened: Connection, query: str) -> list[tuple[object, ...]]:
    """The rows of an answer."""
    opened.begin_with([], alone=True)
    with opened.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def _version(opened: Connection) -> Finding:
    major, minor = divmod(opened.server_version, 10_000)
    if major < OLDEST_VERSION:
        return failure(
            "postgres",
            f"version {major}.{minor} is too old",
            mend=f"move to {OLDEST_VERSION} or newer",
        )
    return well("postgres", f"version {major}.{minor} answers")


def _schema(opened: Connection) -> Finding:
    [[table]] = ask(opened, "SELECT to_regclass('alembic_version')")
    found = ask(opened, "SELECT version_num FROM alembic_version") if table else []
    revision = str(found[0][0]) if found else None
    if schema.is_behind(revision):
        return failure(
            "schema",
            f"at {revision or 'nothing'}, and this version needs {schema.REVISION}",
            mend="run: octavo migrate",
        )
    return well("schema", f"at {revision}")


def _connections(opened: Connection) -> Finding:
    query = """
        SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
               current_setting('max_connections')::int
                 - current_setting('superuser_reserved_connections')::int
    """
    [[used, most]] = ask(opened, query)
    said = f"{used} of {most} in use"
    if int(str(most)) - int(str(used)) < SPARE_CONNECTIONS:
        mend = "raise max_connections, or let fewer processes run: each may use 18"
        return warning("connections", said, mend=mend)
    return well("connections", said)


def _durability(opened: Connection) -> Finding:
    names = ("fsync", "synchronous_commit", "full_page_writes")
    off = [name for name in names if ask(opened, f"SHOW {name}") == [("off",)]]
    if ask(opened, "SHOW transaction_read_only") == [("on",)]:
        mend = "point OCTAVO_DATABASE_URL at the primary, or make disk space and end recovery"
        return failure("durability", "the server only reads", mend=mend)
    if off:
        mend = "switch on: what was acknowledged may be lost with the power"
        return failure("durability", f"{', '.join(off)} off", mend=mend)
    return well("durability", "a commit is on disk")


def _transactions(opened: Connection) -> Finding:
    query = """
        SELECT coalesce(max(extract(epoch FROM now() - xact_start)), 0)::int FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
    """
    [[seconds]] = ask(opened, query)
    said = f"the oldest is {seconds} s old"
    if int(str(seconds)) > OLD_TRANSACTION_SECONDS:
        mend = "end it: dead rows of the queue cannot be cleaned away while it lasts"
        return warning("transactions", said, mend=mend)
    return well("transactions", said)
