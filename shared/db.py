"""The way to Postgres: one engine a process, and `transaction()`, the only place that commits.

A transaction that serves a tenant says so, and row-level security then shows it that tenant's rows
and no other. For the gateway's role one that does not say so sees no row at all.
"""

from __future__ import annotations

import functools
import select
import time
from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Event, Lock
from typing import Any
from uuid import UUID

import psycopg2
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from shared import connection
from shared.advisory import AdvisoryLock
from shared.config import InvalidSettings, settings
from shared.errors import DatabaseBusy, DatabaseUnavailable
from shared.roles import Role

RETRY_AFTER_SECONDS = 2
CONNECTIONS = 16
POOL_WAIT_SECONDS = 2
CROWD_SECONDS = 5
"""After somebody has waited for a connection in vain, nobody waits for so long."""

CONNECT_ARGUMENTS = {
    "connection_factory": connection.Connection,
    "connect_timeout": 2,
    # A half-open connection is noticed in about five seconds, not in two hours.
    "keepalives": 1,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 4000,
    "target_session_attrs": "read-write",
}

BUSY = {"57014", "55P03", "40P01"}
"""What Postgres says of a statement that took too long, waited for a lock, or was in a deadlock."""

SPOILT = {
    "25006": "it only reads: after a fail-over it is not the server to write to",
    "0A000": "a plan that was kept is of an older schema",
    "26000": "a plan that was kept is gone",
    "42P05": "a plan is there that was not kept",
}
"""What Postgres says where another connection would do better."""


class _Limits:
    """How long a statement may take in this process."""

    statement_seconds: float = 5


def limit_statements(seconds: float) -> None:
    """Let no statement of this process take longer; to be called before the first."""
    assert not engine.cache_info().currsize, "connections were made already"
    _Limits.statement_seconds = seconds


@functools.cache
def engine() -> Engine:
    """The engine of this process; made on first use, so never inherited over a fork."""
    return engine_for(settings().database_url.get_secret_value())


def engine_for(url: str, *, connections: int = CONNECTIONS) -> Engine:
    """A new engine, which keeps at most so many connections to `url`."""
    connection.watch_answers(_Limits.statement_seconds)
    made = create_engine(
        url,
        connect_args=CONNECT_ARGUMENTS | {"options": _session_options()},
        pool_size=connections,
        max_overflow=0,  # an overflow connection is made and dropped for each use
        pool_timeout=POOL_WAIT_SECONDS,
        pool_use_lifo=True,
        use_native_hstore=False,  # a question more for each engine, about a type that nobody uses
    )
    event.listen(made, "handle_error", _leave_spoilt)
    return made


def _session_options() -> str:
    """How Postgres serves us.

    A statement that waits is worse than one that fails: whoever asked can come again. And what was
    planned once, for a queue of a few rows, must still find its index when there are many. (Before
    Postgres 18 a scan that is forbidden and made all the same looks dear enough to be compiled.)
    """
    statement = 1000 * _Limits.statement_seconds
    return (
        f"-c statement_timeout={statement:.0f} -c lock_timeout=2000 "
        "-c idle_in_transaction_session_timeout=5000 "
        "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c jit=off"
    )


@functools.cache
def _sessions() -> sessionmaker[Session]:
    return sessionmaker(engine(), expire_on_commit=False)


class _Crowd:
    """Those who use the pool.

    A crowd that waits for a database which does not answer takes all threads, and whoever comes
    behind it waits for a thread first. So once somebody has waited in vain, the rest is refused
    at once, for a while.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._nobody_waits_until = 0.0
        self._lock = Lock()

    @contextmanager
    def joined(self) -> Iterator[None]:
        with self._lock:
            if self._inside >= CONNECTIONS and time.monotonic() < self._nobody_waits_until:
                raise _all_in_use()
            self._inside += 1
        try:
            yield
        except PoolTimeout:
            self._nobody_waits_until = time.monotonic() + CROWD_SECONDS
            raise
        finally:
            with self._lock:
                self._inside -= 1


_crowd = _Crowd()


_FORGETTABLE = "SET LOCAL synchronous_commit = off"


@contextmanager
def transaction(
    tenant: UUID | None = None, *, durable: bool = True, alone: bool = False
) -> Iterator[Session]:
    """A session whose work is committed whole at the end of the block, or not at all.

    With `tenant` it is served: the session sees and makes rows of that tenant only. What is not
    `durable` may be forgotten, whole, by a crash of Postgres, and is not waited for. One statement
    that is `alone` commits itself: its locks last no longer than it does, and no COMMIT is waited
    for. Nothing slow belongs inside. Raises DatabaseUnavailable where Postgres does not answer, and
    then nothing can be said of a commit that was under way: the row tells.
    """
    with _typed_errors(), _crowd.joined(), _sessions().begin() as session:
        first = [] if durable else [_FORGETTABLE]
        if tenant is not None:
            first.append(_set_tenant(tenant))
        if first or alone:
            _driver(session.connection()).begin_with(first, alone=alone)
        yield session


@contextmanager
def forgettable_statements() -> Iterator[Session]:
    """A session of which each statement is a transaction by itself, and not durable.

    Raises DatabaseUnavailable.
    """
    with _typed_errors(), _crowd.joined(), _sessions().begin() as session:
        _driver(session.connection()).begin_with([_FORGETTABLE], each=True)
        yield session


def own_transactions() -> Callable[[], AbstractContextManager[Session]]:
    """Transactions over one connection of their own, which no crowd in the pool keeps waiting.

    For one thread, and for what must not wait: heartbeats, and the question whether all is well.
    """
    own = engine_for(settings().database_url.get_secret_value(), connections=1)
    return functools.partial(_committed, sessionmaker(own, expire_on_commit=False))


@contextmanager
def _committed(sessions: sessionmaker[Session]) -> Iterator[Session]:
    with _typed_errors(), sessions.begin() as session:
        yield session


def enter(session: Session, tenant: UUID) -> None:
    """Go on with a transaction as one that serves `tenant`, who was not known at its beginning."""
    session.execute(text(_set_tenant(tenant)))


def refuse_unbound_role() -> None:
    """Let this process use no connection that row-level security does not bind.

    Raises InvalidSettings for one that it does not bind: here, or, where Postgres is away now, from
    the transaction that would use it.
    """
    event.listen(engine(), "connect", _check_bound)
    with suppress(DatabaseUnavailable), transaction() as session:
        session.connection()


class Sole:
    """What the one holder of a lock has of it: the connection that it is held by. For one thread."""

    def __init__(self, holder: Connection) -> None:
        self._holder = holder

    def check(self) -> None:
        """Raise DatabaseUnavailable where the lock was lost with its connection."""
        with _typed_errors():
            self.ask("SELECT 1")

    def listen(self, channel: str) -> None:
        """Be woken, from now on, by what is told on a channel of Postgres'."""
        with _typed_errors():
            self.ask(f"LISTEN {channel}")

    def wait(self, seconds: float, heeding: Container[str]) -> None:
        """Return once something of those was told, or after so long; raises DatabaseUnavailable."""
        until = time.monotonic() + seconds
        while not any(word in heeding for word in self._told(until - time.monotonic())):
            if time.monotonic() >= until:
                break

    def _told(self, seconds: float) -> list[str]:
        """What was told since the last time; where that is nothing, waits for it so long."""
        driver = _driver(self._holder)
        try:
            if not driver.notifies:
                said = select.poll()
                said.register(driver.fileno(), select.POLLIN)
                said.poll(1000 * max(0.0, seconds))
                driver.poll()
        except psycopg2.OperationalError as error:
            raise DatabaseUnavailable("The lock was lost with its connection.") from error
        told = [told.payload for told in driver.notifies]
        driver.notifies.clear()
        return told

    def ask(self, question: str, **values: object) -> Any:
        """The answer to a statement, with no transaction: that would last as long as the lock."""
        _driver(self._holder).begin_with([], alone=True)
        answer = self._holder.execute(text(question), values)
        return answer.scalar() if answer.returns_rows else None


@contextmanager
def sole_holder(
    lock: AdvisoryLock, stop: Event, on_wait: Callable[[], None] = lambda: None
) -> Iterator[Sole]:
    """Hold an advisory lock that one process at a time can have; waits for it until `stop`.

    `on_wait` is called each second of the waiting.
    """
    with _typed_errors(), engine().connect() as holder:
        sole = Sole(holder)
        while not sole.ask("SELECT pg_try_advisory_lock(:lock)", lock=lock):
            on_wait()
            if stop.wait(1):
                break
        try:
            yield sole
        finally:
            # Not unlocked but closed: a connection that went back with the lock would keep it.
            holder.invalidate()


def _driver(bound: Connection) -> connection.Connection:
    """The connection as the driver knows it."""
    found = bound.connection.driver_connection
    assert isinstance(found, connection.Connection)
    return found


def _set_tenant(tenant: UUID) -> str:
    """What binds a transaction; `true` ends it with the transaction, so that connections forget."""
    return f"SELECT set_config('octavo.tenant', '{UUID(bytes=tenant.bytes)}', true)"


_IS_BOUND = """
SELECT row_security_active('jobs') AND NOT pg_has_role(current_user, relowner, 'USAGE')
FROM pg_class WHERE oid = 'jobs'::regclass
"""


def _check_bound(made: Any, _: object) -> None:
    with made.cursor() as cursor:
        cursor.execute(_IS_BOUND)
        [bound] = cursor.fetchone()
    made.rollback()
    if not bound:
        raise InvalidSettings(
            "OCTAVO_DATABASE_URL: row-level security does not bind its user, who would see the "
            f"rows of all tenants; the gateway connects as {Role.GATEWAY}, after `octavo migrate`."
        )


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Turn what the driver raises for an absent database into what callers act on."""
    try:
        yield
    except PoolTimeout as error:
        raise _all_in_use() from error
    except DBAPIError as error:
        if isinstance(error, OperationalError) or error.connection_invalidated:
            is_busy = getattr(error.orig, "pgcode", None) in BUSY
            kind = DatabaseBusy if is_busy else DatabaseUnavailable
            message = "The database does not answer."
            raise kind(message, retry_after_seconds=RETRY_AFTER_SECONDS) from error
        raise


def _all_in_use() -> DatabaseUnavailable:
    message = "All connections to the database are in use."
    return DatabaseUnavailable(message, retry_after_seconds=RETRY_AFTER_SECONDS)


def _leave_spoilt(context: ExceptionContext) -> None:
    """Let go of connections that will serve nobody any more."""
    if getattr(context.original_exception, "pgcode", None) in SPOILT:
        context.is_disconnect = True
