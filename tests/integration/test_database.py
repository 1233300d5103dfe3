"""The way to Postgres where it is slow, frozen, read-only, or dies in the worst moment."""

import os
import signal
import time
from contextlib import ExitStack
from uuid import uuid4

import pytest
from psycopg2.extensions import TRANSACTION_STATUS_IDLE
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from shared import db, prepared, work
from shared.config import settings
from shared.connection import Connection
from shared.db import own_transactions, transaction
from shared.errors import DatabaseUnavailable
from shared.status import WorkStatus
from shared.work import Claim
from tests.factory import make_prepared, recognition
from tests.proxy import CutAfterCommit
from worker.heartbeat import Held
from worker.tasks import attempt


@pytest.fixture
def claim() -> Claim:
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        held = work.claim(session, unit.id, "worker")
    assert held is not None
    return held


def test_a_server_that_is_frozen_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "answer_seconds", 1)
    mine = own_transactions()
    monkeypatch.setattr(Connection, "answer_seconds", 1)  # making them has set it
    with mine() as session:
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()

    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(DatabaseUnavailable), mine() as session:
            session.execute(text("SELECT 1"))
    finally:
        os.kill(pid, signal.SIGCONT)

    assert 0.9 < time.monotonic() - began < 5
    monkeypatch.undo()  # a connection is made in more than a second, on a slow machine
    with mine() as session:
        assert session.execute(text("SELECT pg_backend_pid()")).scalar_one() != pid


def test_a_statement_that_takes_long_is_ended_by_the_server() -> None:
    with pytest.raises(DatabaseUnavailable) as ended, transaction() as session:
        session.execute(text("SET LOCAL statement_timeout = 100"))
        session.execute(text("SELECT pg_sleep(5)"))

    assert ended.value.retry_after_seconds


def test_a_server_that_only_reads_is_left() -> None:
    with transaction() as session:
        before = session.execute(text("SELECT pg_backend_pid()")).scalar_one()

    with pytest.raises(DatabaseUnavailable), transaction() as session:
        session.execute(text("SET TRANSACTION READ ONLY"))
        session.execute(text("INSERT INTO tenants (id, name) VALUES (:id, 'a')"), {"id": uuid4()})

    with transaction() as session:
        assert session.execute(text("SELECT pg_backend_pid()")).scalar_one() != before


class TestATransaction:
    """What is sent for it, and when."""

    THIS = text("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")

    def test_begins_with_its_first_statement(self) -> None:
        with transaction() as session:
            assert session.execute(self.THIS).scalar_one() == f"BEGIN; {self.THIS}"
            number = text("SELECT pg_current_xact_id()")
            assert session.scalar(number) == session.scalar(number)

    def test_is_undone_whole(self) -> None:
        with pytest.raises(ZeroDivisionError), transaction() as session:
            insert_tenant(session, "one")
            insert_tenant(session, "two")
            raise ZeroDivisionError
        assert tenants() == []

    def test_is_undone_with_all_rows_of_a_statement_for_many(self) -> None:
        with pytest.raises(ZeroDivisionError), transaction() as session:
            for name in ("first", "second"):
                rows = [{"id": uuid4(), "name": f"{name} {number}"} for number in range(2)]
                session.execute(INSERT_TENANT, rows)
            raise ZeroDivisionError
        assert tenants() == []

    def test_is_undone_where_its_first_statement_fails(self) -> None:
        with pytest.raises(DBAPIError), transaction() as session:
            session.execute(text("SELECT 1 / 0"))
        with transaction() as session:
            assert session.execute(self.THIS).scalar_one().startswith("BEGIN")

    def test_of_one_statement_alone_is_committed_by_it(self) -> None:
        with transaction(alone=True) as session:
            insert_tenant(session, "alone")
            with transaction() as other:
                found = other.execute(text("SELECT 1 FROM tenants WHERE name = 'alone'"))
                assert found.scalar() == 1

    def test_of_one_statement_alone_has_no_second(self) -> None:
        with pytest.raises(AssertionError, match="only"), transaction(alone=True) as session:
            session.execute(text("SELECT 1"))
            session.execute(text("SELECT 2"))

    def test_of_one_statement_alone_is_not_many(self) -> None:
        rows = [{"id": uuid4(), "name": f"many {number}"} for number in range(2)]
        with pytest.raises(AssertionError, match="one"), transaction(alone=True) as session:
            session.execute(INSERT_TENANT, rows)
        assert tenants() == []

    def test_of_one_statement_alone_may_be_forgotten_too(self) -> None:
        waits = text("SELECT current_setting('synchronous_commit')")
        with transaction(durable=False, alone=True) as session:
            assert session.execute(waits).scalar_one() == "off"
        with transaction(alone=True) as session:
            assert session.execute(waits).scalar_one() == "on"


class TestAPreparedStatement:
    """Planned once a connection."""

    PLANNED = text(
        "SELECT generic_plans + custom_plans FROM pg_prepared_statements WHERE name = :n"
    )

    @pytest.fixture
    def doubled(self) -> tuple[TextClause, str]:
        name = f"test_{uuid4().hex}"
        sql = "SELECT :number * 2 + cardinality(:more)::int"
        return prepared.statement(name, sql, number="int", more="text[]"), f"octavo_{name}"

    def test_is_asked_like_any_other(self, doubled: tuple[TextClause, str]) -> None:
        statement, name = doubled
        own = own_transactions()
        for number in (3, 4):
            with own() as session:
                values = {"number": number, "more": ["it's", ":number"]}
                assert session.execute(statement, values).scalar_one() == 2 * number + 2
        with own() as session:
            assert session.execute(self.PLANNED, {"n": name}).scalar_one() == 2

    def test_outlives_the_transaction_that_planned_it(
        self, doubled: tuple[TextClause, str]
    ) -> None:
        statement, name = doubled
        own = own_transactions()
        values = {"number": 1, "more": []}
        with pytest.raises(ZeroDivisionError), own() as session:
            session.execute(statement, values)
            raise ZeroDivisionError
        with own() as session:
            assert session.execute(statement, values).scalar_one() == 2
            assert session.execute(self.PLANNED, {"n": name}).scalar_one() == 2

    def test_that_is_gone_is_planned_again_over_a_new_connection(
        self, doubled: tuple[TextClause, str]
    ) -> None:
        statement, _ = doubled
        own = own_transactions()
        values = {"number": 1, "more": []}
        with own() as session:
            session.execute(statement, values)
            session.execute(text("DEALLOCATE ALL"))

        with pytest.raises(DatabaseUnavailable), own() as session:
            session.execute(statement, values)
        with own() as session:
            assert session.execute(statement, values).scalar_one() == 2


INSERT_TENANT = text("INSERT INTO tenants (id, name) VALUES (:id, :name)")


def insert_tenant(session: Session, name: str) -> None:
    session.execute(INSERT_TENANT, {"id": uuid4(), "name": name})


def tenants() -> list[str]:
    with transaction() as session:
        return list(session.scalars(text("SELECT name FROM tenants")))


def test_only_what_may_be_forgotten_is_not_waited_for() -> None:
    waits = text("SELECT current_setting('synchronous_commit')")
    with transaction(durable=False) as session:
        assert session.execute(waits).scalar_one() == "off"
    with transaction() as session:
        assert session.execute(waits).scalar_one() == "on"


def test_who_has_a_connection_of_its_own_does_not_wait_for_the_pool() -> None:
    own = own_transactions()
    pool = db.engine().pool
    taken = [db.engine().connect() for _ in range(pool.size())]  # type: ignore[attr-defined]
    try:
        with own() as session:
            assert session.execute(text("SELECT 1")).scalar() == 1
        with pytest.raises(DatabaseUnavailable, match="in use"), transaction() as session:
            session.execute(text("SELECT 1"))
    finally:
        for connection in taken:
            connection.close()


def test_nobody_waits_where_somebody_has_waited_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "_crowd", db._Crowd())  # noqa: SLF001 - nobody is to be left waiting
    with ExitStack() as taken:
        for _ in range(db.CONNECTIONS):
            taken.enter_context(transaction()).execute(text("SELECT 1"))
        waited = [seconds_to_be_refused() for _ in range(3)]

    assert waited[0] > 1.5
    assert max(waited[1:]) < 1.5
    with transaction() as session:
        session.execute(text("SELECT 1"))


def seconds_to_be_refused() -> float:
    began = time.monotonic()
    with pytest.raises(DatabaseUnavailable, match="in use"), transaction() as session:
        session.execute(text("SELECT 1"))
    return time.monotonic() - began


@pytest.mark.parametrize("status", [WorkStatus.SUCCEEDED, WorkStatus.FAILED])
def test_a_connection_that_dies_in_the_commit_costs_nothing(
    claim: Claim, proxy: CutAfterCommit, status: WorkStatus
) -> None:
    from shared import pages
    from shared.errors import PageTimeout

    def end(session: Session) -> bool:
        if status is WorkStatus.SUCCEEDED:
            return pages.succeed(session, claim, recognition())
        return pages.fail(session, claim, PageTimeout())

    proxy.arm()
    assert attempt.store(Held(claim), end)

    assert proxy.cuts == 1
    with transaction() as session:
        row = session.execute(text("SELECT status, attempt FROM work WHERE kind = 'recognise'"))
        assert row.one() == (status, claim.attempt)


def test_what_another_ended_is_not_taken_for_mine(claim: Claim, proxy: CutAfterCommit) -> None:
    from shared import pages

    with transaction() as session:
        session.execute(text("UPDATE work SET attempt = attempt + 1 WHERE status = 'running'"))
    proxy.arm()

    assert not attempt.store(Held(claim), lambda s: pages.succeed(s, claim, recognition()))


@pytest.mark.parametrize("seconds", [2, 5])
def test_the_server_knows_how_long_this_process_waits(
    seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db._Limits, "statement_seconds", seconds)  # noqa: SLF001 - once a process
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    with own_transactions()() as session:
        show = text("SELECT current_setting(:name)")
        found = [session.execute(show, {"name": name}).scalar_one() for name in names]

    assert found == [f"{seconds}s", "2s", "5s"]
    assert Connection.answer_seconds == seconds + 1


def test_a_new_connection_has_no_transaction_open() -> None:
    url = settings().database_url.get_secret_value()
    made = db.engine_for(url, connections=2)
    with made.connect() as first, made.connect() as second:
        for each in (first, second):
            driver = each.connection.driver_connection
            assert driver is not None
            assert driver.get_transaction_status() == TRANSACTION_STATUS_IDLE
    made.dispose()


@pytest.mark.parametrize("alone", [False, True])
def test_a_connection_that_was_cut_is_an_outage_and_the_next_one_is_good(
    alone: bool,  # noqa: FBT001 - of a test
    proxy: CutAfterCommit,
) -> None:
    proxy.arm(b"SELECT 41")
    with pytest.raises(DatabaseUnavailable), transaction(alone=alone) as session:
        session.execute(text("SELECT 41"))

    with transaction(alone=alone) as session:
        assert session.execute(text("SELECT 42")).scalar_one() == 42
