"""The way to Postgres: one engine a process, and `transaction()`, the only place that commits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from shared.config import settings
from shared.errors import DatabaseUnavailable

CONNECT_ARGUMENTS = {
    "connect_timeout": 2,
    # A half-open connection is noticed in about five seconds, not in two hours.
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 4000,
    # A statement that waits is worse than one that fails: whoever asked can come again.
    "options": "-c statement_timeout=5000 -c lock_timeout=2000 "
    "-c idle_in_transaction_session_timeout=5000",
}


@functools.cache
def engine() -> Engine:
    """The engine of this process; made on first use, so never inherited over a fork."""
    return create_engine(
        settings().database_url.get_secret_value(),
        connect_args=CONNECT_ARGUMENTS,
        pool_size=16,
        max_overflow=0,  # an overflow connection is made and dropped for each use
        pool_timeout=2,
        pool_use_lifo=True,
    )


@functools.cache
def _sessions() -> sessionmaker[Session]:
    return sessionmaker(engine(), expire_on_commit=False)


@contextmanager
def transaction() -> Iterator[Session]:
    """A session whose work is committed whole at the end of the block, or not at all.

    Nothing slow belongs inside. Raises DatabaseUnavailable where Postgres does not answer, and
    then nothing can be said of a commit that was under way: the row tells.
    """
    with _typed_errors(), _sessions().begin() as session:
        yield session


@contextmanager
def sole_holder(lock: int, stop: Event) -> Iterator[Callable[[], None]]:
    """Hold an advisory lock that one process at a time can have; waits for it until `stop`.

    Yields a function that raises DatabaseUnavailable where the lock was lost with its connection.
    """
    connect = engine().execution_options(isolation_level="AUTOCOMMIT").connect
    with _typed_errors(), connect() as connection:

        def still_sole() -> None:
            with _typed_errors():
                connection.execute(text("SELECT 1"))

        attempt = text("SELECT pg_try_advisory_lock(:lock)")
        while not connection.execute(attempt, {"lock": lock}).scalar():
            if stop.wait(1):
                break
        try:
            yield still_sole
        finally:
            # Not unlocked but closed: a connection that went back with the lock would keep it.
            connection.invalidate()


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Turn what the driver raises for an absent database into what callers act on."""
    try:
        yield
    except PoolTimeout as error:
        message = "All connections to the database are in use."
        raise DatabaseUnavailable(message, retry_after_seconds=2) from error
    except DBAPIError as error:
        if isinstance(error, OperationalError) or error.connection_invalidated:
            message = "The database does not answer."
            raise DatabaseUnavailable(message, retry_after_seconds=2) from error
        raise
