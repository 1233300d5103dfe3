"""How Alembic runs a migration here: one at a time, and never in the way of the running system.

A statement that waits for a lock makes all others wait behind it: it gives up after LOCK_SECONDS,
lets them pass, and tries again. Each revision is a transaction of its own, or safe to run again.

One that alters two tables waits for the second while others, who have that one, wait for the first.
Postgres ends such a deadlock after a second (`deadlock_timeout`) at the expense of whoever has waited
for so long: never of them, since twice LOCK_SECONDS is less. So a revision alters two at most that
the platform works on.
"""

import time

from alembic import context
from psycopg2.errors import LockNotAvailable
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import OperationalError

from shared.advisory import AdvisoryLock
from shared.config import settings
from shared.models import Model

LOCK_SECONDS = 0.4
PAUSE_SECONDS = 1.0
PATIENCE_SECONDS = 120.0


def run() -> None:
    """Apply the revisions that are missing; raises where a lock cannot be had for long."""
    engine = create_engine(settings().database_url.get_secret_value())
    deadline = time.monotonic() + PATIENCE_SECONDS
    with engine.connect() as connection:
        connection.execute(text(f"SET lock_timeout = '{LOCK_SECONDS}s'"))
        connection.execute(text("SET statement_timeout = '60s'"))
        _wait_for_turn(connection, deadline)
        while not _applied(connection, deadline):
            time.sleep(PAUSE_SECONDS)
    engine.dispose()


def _wait_for_turn(connection: Connection, deadline: float) -> None:
    """Be the only one who migrates.

    Asked for again and again: a statement that waited would hold a snapshot, and an index that the
    other one builds concurrently waits for every snapshot.
    """
    attempt = text("SELECT pg_try_advisory_lock(:lock)")
    while not connection.execute(attempt, {"lock": AdvisoryLock.MIGRATION}).scalar():
        connection.commit()
        if time.monotonic() > deadline:
            raise TimeoutError("another migration has been running for long")
        time.sleep(PAUSE_SECONDS)
    connection.commit()


def _applied(connection: Connection, deadline: float) -> bool:
    context.configure(
        connection=connection, target_metadata=Model.metadata, transaction_per_migration=True
    )
    try:
        with context.begin_transaction():
            context.run_migrations()
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable) or time.monotonic() > deadline:
            raise
        connection.rollback()
        return False
    return True


run()
