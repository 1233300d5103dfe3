"""Row-level security and the database's roles: the wall that stands where a filter was forgotten."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, sessionmaker
from starlette.testclient import TestClient

from shared import db, glances, jobs, keys, new_pages, pages, turns, work, workers
from shared.config import settings
from shared.db import transaction
from shared.errors import DatabaseUnavailable, PageTimeout
from shared.models import Job, Model, Tombstone
from shared.roles import Role
from shared.status import JobStatus, WorkKind, WorkStatus
from tests import acting, documents
from tests.acting import acting_as
from tests.factory import (
    authorization,
    claimed,
    make_job,
    make_prepared,
    make_tenant,
    overdue,
    recognition,
    unread,
    work_of,
)
from tests.operations import finished

WALLED = """
SELECT c.relname AS name, c.relrowsecurity AND c.relforcerowsecurity AS forced,
  array(SELECT policyname FROM pg_policies WHERE tablename = c.relname
        AND (roles && '{octavo_gateway, public}')) AS policies
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
  AND (a.attname = 'tenant' OR c.relname = 'tenants' AND a.attname = 'id') AND NOT a.attisdropped
"""

OWNERS_EYES = """
SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm')
  AND NOT coalesce('security_invoker=true' = ANY(reloptions), false)
"""

CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = :role"

LOOSE_KEYS = """
SELECT conrelid::regclass::text, conname FROM pg_constraint k
WHERE contype = 'f' AND confrelid <> 'tenants'::regclass
  AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = confrelid AND attname = 'tenant')
  AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = conrelid AND attname = 'tenant'
                  AND attnum = ANY(conkey))
"""


def unwalled(session: Session) -> set[str]:
    """The tables with a tenant's rows that not every statement of the gateway is bound on."""
    rows = session.execute(text(WALLED)).all()
    assert len(rows) >= 8
    return {row.name for row in rows if not row.forced or not row.policies}


@contextmanager
def serving(tenant: UUID | None) -> Iterator[Session]:
    """A transaction of the gateway."""
    with acting_as(Role.GATEWAY), transaction(tenant) as session:
        yield session


@pytest.fixture
def tenants() -> tuple[UUID, UUID]:
    """Two tenants, each with a job of two pages, one of them read."""
    with transaction() as session:
        made = []
        for name in ("one", "two"):
            job, units = make_prepared(session, 2, source_name=f"{name}.pdf")
            pages.succeed(session, claimed(session, units[0]), recognition(f"text of {name}"))
            glances.watch(session, job.tenant, job.id, 2)
            keys.create(session, job.tenant)
            made.append(job.tenant)
    return made[0], made[1]


class TestTheSchema:
    def test_every_table_with_a_tenants_rows_stands_behind_the_wall(self, session: Session) -> None:
        assert unwalled(session) == set()

    def test_a_new_table_without_it_is_found(self, session: Session) -> None:
        session.execute(text("CREATE TABLE fresh (id int, tenant uuid)"))
        assert unwalled(session) == {"fresh"}

        session.execute(text("ALTER TABLE fresh ENABLE ROW LEVEL SECURITY"))
        session.execute(text("ALTER TABLE fresh FORCE ROW LEVEL SECURITY"))
        assert unwalled(session) == {"fresh"}

        session.execute(text("CREATE POLICY tenant ON fresh TO octavo_gateway USING (false)"))
        assert unwalled(session) == set()
        session.rollback()

    def test_all_that_the_gateway_may_see_names_the_tenant(self, session: Session) -> None:
        query = text(
            "SELECT tablename, qual, with_check FROM pg_policies "
            "WHERE roles && '{octavo_gateway, public}'"
        )

        for row in session.execute(query):
            for expression in (row.qual, row.with_check):
                assert "octavo.tenant" in expression, row
                assert " OR " not in expression, row

    def test_views_read_with_the_eyes_of_who_asks(self, session: Session) -> None:
        assert session.execute(text(OWNERS_EYES)).all() == []

        session.execute(text("CREATE VIEW peephole AS SELECT * FROM jobs"))
        assert session.scalars(text(OWNERS_EYES)).all() == ["peephole"]
        session.execute(text("ALTER VIEW peephole SET (security_invoker = true)"))
        assert session.scalars(text(OWNERS_EYES)).all() == []
        session.rollback()

    def test_a_row_cannot_point_to_another_tenants_row(
        self, session: Session, tenants: tuple[UUID, UUID]
    ) -> None:
        assert session.execute(text(LOOSE_KEYS)).all() == []

        insert = "INSERT INTO pages (job_id, page_no, tenant) SELECT id, 9, :tenant FROM jobs"
        with pytest.raises(DBAPIError, match="violates foreign key constraint"):
            session.execute(text(f"{insert} WHERE tenant <> :tenant"), {"tenant": tenants[0]})
        session.rollback()

    def test_the_doors_through_the_wall_are_these_and_no_others(self, session: Session) -> None:
        query = text(
            "SELECT proname, proconfig, has_function_privilege('public', oid, 'EXECUTE') AS open "
            "FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
        )
        doors = {row.proname: row for row in session.execute(query)}

        assert set(doors) == {
            "octavo_backlog",
            "octavo_count_footprint",
            "octavo_find_key",
            "octavo_page_seconds",
            "octavo_queue_place",
        }
        for door in doors.values():
            assert not door.open
            assert "search_path=public, pg_temp" in door.proconfig

    @pytest.mark.parametrize("role", Role)
    def test_a_role_is_nothing_but_what_it_was_granted(self, session: Session, role: Role) -> None:
        attributes = session.execute(
            text(
                "SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication "
                "FROM pg_roles WHERE rolname = :role"
            ),
            {"role": role},
        )
        owned = session.execute(
            text("SELECT count(*) FROM pg_class WHERE relowner = CAST(:role AS regrole)"),
            {"role": role},
        )
        memberships = session.execute(
            text("SELECT count(*) FROM pg_auth_members WHERE member = CAST(:role AS regrole)"),
            {"role": role},
        )

        found = [rows.scalar_one() for rows in (attributes, owned, memberships)]
        assert found == [False, 0, 0]


class TestTheGatewaysRole:
    @pytest.mark.parametrize(
        "table", ["tenants", "jobs", "pages", "work", "recognitions", "tombstones", "glances"]
    )
    def test_it_sees_the_rows_of_whom_it_serves(
        self, tenants: tuple[UUID, UUID], table: str
    ) -> None:
        with transaction() as session:
            for tenant in tenants:
                values = {"job_id": uuid4(), "rows": 1, "objects": 1}
                now = session.execute(text("SELECT now()")).scalar_one()
                session.add(Tombstone(tenant=tenant, deleted_at=now, **values))
        column = "id" if table == "tenants" else "tenant"
        query = text(f"SELECT DISTINCT {column} FROM {table}")  # noqa: S608 - names of ours

        for tenant in tenants:
            with serving(tenant) as session:
                assert session.scalars(query).all() == [tenant]
        with serving(None) as session:
            assert session.scalars(query).all() == []

    def test_it_changes_no_foreign_row(self, tenants: tuple[UUID, UUID]) -> None:
        mine, theirs = tenants
        with serving(mine) as session:
            changed = session.execute(
                text("UPDATE jobs SET status = 'cancelled' WHERE tenant = :tenant RETURNING id"),
                {"tenant": theirs},
            )
            assert changed.all() == []

    def test_it_inserts_no_foreign_row(self, tenants: tuple[UUID, UUID]) -> None:
        mine, theirs = tenants
        with pytest.raises(DBAPIError, match="row-level security"), serving(mine) as session:
            make_job(session, theirs)

    def test_it_gives_no_row_away(self, tenants: tuple[UUID, UUID]) -> None:
        mine, theirs = tenants
        with pytest.raises(DBAPIError, match="permission denied"), serving(mine) as session:
            session.execute(text("UPDATE jobs SET tenant = :tenant"), {"tenant": theirs})

    def test_it_finds_a_key_by_its_id_and_lists_none(self, tenants: tuple[UUID, UUID]) -> None:
        with transaction() as session:
            key_id = keys.create(session, tenants[1]).split("_")[2]
        with serving(None) as session:
            find = text("SELECT tenant FROM octavo_find_key(:id)")
            assert session.scalars(find, {"id": key_id}).all() == [tenants[1]]
            assert session.scalars(text("SELECT id FROM api_keys")).all() == []
        with serving(tenants[0]) as session:
            assert len(session.scalars(text("SELECT id FROM api_keys")).all()) == 1

    @pytest.mark.parametrize(
        "statement",
        [
            "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE jobs NO FORCE ROW LEVEL SECURITY",
            "ALTER TABLE jobs ADD COLUMN spy text",
            "DROP POLICY tenant ON jobs",
            "CREATE POLICY mine ON jobs USING (true)",
            "CREATE TABLE public.mine (id int)",
            "CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER FUNCTION octavo_find_key(text) OWNER TO octavo_gateway",
            "SET ROLE octavo",
            "SET SESSION AUTHORIZATION octavo",
            "GRANT octavo TO octavo_gateway",
            "ALTER ROLE octavo_gateway BYPASSRLS",
            "CREATE ROLE mine",
            "SET session_replication_role = replica",
            "COPY jobs TO PROGRAM 'cat'",
            "SELECT pg_read_file('postgresql.conf')",
            "TRUNCATE jobs",
            "DELETE FROM jobs",
            "UPDATE recognitions SET body = ''",
            "SELECT secret_hash FROM api_keys",
            "UPDATE api_keys SET revoked_at = NULL",
            "INSERT INTO api_keys (id, tenant, secret_hash, scopes) VALUES ('a', NULL, '', '{}')",
            "UPDATE tenants SET weight = 1000",
            "UPDATE glances SET text = ''",
            "DELETE FROM glances",
            "SELECT * FROM audit",
            "UPDATE audit SET actor = 'nobody'",
            "DELETE FROM audit",
            "UPDATE alembic_version SET version_num = ''",
        ],
    )
    def test_it_may_not(self, tenants: tuple[UUID, UUID], statement: str) -> None:
        refusal = "permission denied|must be owner|must be able|must be member|Only roles with"
        with pytest.raises(DBAPIError, match=refusal), serving(tenants[0]) as session:
            session.execute(text(statement))

    def test_behind_a_door_it_is_as_bound_as_before(self, tenants: tuple[UUID, UUID]) -> None:
        ahead = "SELECT pages_ahead FROM octavo_queue_place('interactive', now(), :queue, 9)"
        with serving(tenants[0]) as session:
            assert session.execute(text(ahead), {"queue": "recognise.fake"}).scalar() == 2
            assert session.scalars(text("SELECT tenant FROM jobs")).all() == [tenants[0]]

    def test_turning_row_security_off_shows_nothing_but_an_error(
        self, tenants: tuple[UUID, UUID]
    ) -> None:
        message = "would be affected by row-level security"
        with pytest.raises(DBAPIError, match=message), serving(tenants[0]) as session:
            session.execute(text("SET row_security = off"))
            session.execute(text("SELECT * FROM jobs"))


FOREIGN_STATEMENTS = [
    (Role.WORKER, "SELECT id FROM api_keys"),
    (Role.WORKER, "SELECT octavo_find_key('abcdefgh')"),
    (Role.WORKER, "SELECT * FROM audit"),
    (Role.WORKER, "INSERT INTO audit (tenant, actor, action, object) VALUES (NULL, '', '', '')"),
    (Role.WORKER, "SELECT name FROM tenants"),
    (Role.WORKER, "DELETE FROM jobs"),
    (Role.WORKER, "DELETE FROM work"),
    (Role.WORKER, "INSERT INTO jobs (id) VALUES (NULL)"),
    (Role.WORKER, "UPDATE jobs SET tenant = NULL"),
    (Role.WORKER, "UPDATE recognitions SET body = ''"),
    (Role.WORKER, "SELECT * FROM tombstones"),
    (Role.WORKER, "UPDATE glances SET wanted_until = now()"),
    (Role.WORKER, "DELETE FROM glances"),
    (Role.DISPATCHER, "SELECT * FROM glances"),
    (Role.SWEEPER, "UPDATE glances SET text = ''"),
    (Role.DISPATCHER, "SELECT * FROM jobs"),
    (Role.DISPATCHER, "SELECT body FROM recognitions"),
    (Role.DISPATCHER, "SELECT image_key FROM pages"),
    (Role.DISPATCHER, "SELECT id FROM api_keys"),
    (Role.DISPATCHER, "UPDATE work SET status = 'succeeded'"),
    (Role.DISPATCHER, "SELECT * FROM audit"),
    (Role.SWEEPER, "SELECT id FROM api_keys"),
    (Role.SWEEPER, "INSERT INTO jobs (id) VALUES (NULL)"),
    (Role.SWEEPER, "UPDATE jobs SET tenant = NULL"),
    (Role.SWEEPER, "UPDATE recognitions SET body = ''"),
    (Role.SWEEPER, "SELECT * FROM audit"),
    (Role.SWEEPER, "DELETE FROM audit"),
    (Role.SWEEPER, "SELECT name FROM tenants"),
    *((role, "UPDATE audit SET actor = ''") for role in Role),
    *((role, "TRUNCATE audit") for role in Role),
    *((role, "DROP TABLE audit") for role in Role),
    *((role, "ALTER TABLE work DISABLE ROW LEVEL SECURITY") for role in Role),
]


class TestTheOtherRoles:
    @pytest.mark.parametrize(("role", "statement"), FOREIGN_STATEMENTS)
    def test_none_does_what_another_is_for(self, role: Role, statement: str) -> None:
        refusal = "permission denied|must be owner"
        with pytest.raises(DBAPIError, match=refusal), acting_as(role), transaction() as session:
            session.execute(text(statement))

    @pytest.mark.parametrize("role", [Role.WORKER, Role.DISPATCHER, Role.SWEEPER])
    def test_their_policy_costs_them_nothing(self, role: Role) -> None:
        with acting_as(role), transaction() as session:
            plan = session.scalars(text("EXPLAIN SELECT * FROM work WHERE id = 1")).all()

        assert "Filter" not in "".join(plan)

    def test_a_worker_does_all_of_its_work(self) -> None:
        with transaction() as session:
            [job, other, third] = [make_job(session) for _ in range(3)]
            [prepare, lost, released] = [
                work_of(session, each, WorkKind.PREPARE)[0] for each in (job, other, third)
            ]
        with acting_as(Role.WORKER), transaction() as session:
            held = claimed(session, prepare)
            assert session.get(Job, job.id) is not None
            assert new_pages.begin(session, held, job, 3)
            rendered = [new_pages.Rendered(number, f"{number}.jpg", 10, 10) for number in (1, 2)]
            rendered.append(new_pages.Rendered(3, error=PageTimeout()))
            assert new_pages.add(session, held, rendered)
            assert len(unread(session, job)) == 2
            assert work.renew(session, [held]) == {held.id}
            assert work.end(session, held, WorkStatus.SUCCEEDED)
            [good, bad, _] = work_of(session, job, WorkKind.RECOGNISE)
            held = claimed(session, good)
            found = pages.assignment(session, held)
            assert found is not None
            assert found[0] == "1.jpg"
            assert pages.succeed(session, held, recognition())
            assert pages.fail(session, claimed(session, bad), PageTimeout())
            held = claimed(session, work_of(session, job, WorkKind.ASSEMBLE)[0])
            assert len(pages.finished(session, job.id)) == 3
            assert jobs.finish(session, held, JobStatus.PARTIALLY_SUCCEEDED)
            assert jobs.fail(session, claimed(session, lost), PageTimeout())
            assert work.release(session, claimed(session, released))
            assert work.retry_later(session, claimed(session, released))
            facts: dict[str, Any] = {"queues": ["prepare"], "slots": 1, "busy": 0, "version": "0"}
            for _ in range(2):
                workers.beat(session, "w", draining=False, device={}, **facts)
            workers.leave(session, "w")
        with transaction() as session:
            assert session.get_one(Job, job.id).status is JobStatus.PARTIALLY_SUCCEEDED

    def test_a_worker_gives_up_what_cannot_be_prepared(self) -> None:
        with transaction() as session:
            job = make_job(session)
            prepare = work_of(session, job, WorkKind.PREPARE)[0]
        with acting_as(Role.WORKER), transaction() as session:
            held = claimed(session, prepare)
            new_pages.begin(session, held, job, 2)
            new_pages.add(session, held, [new_pages.Rendered(1, "1.jpg", 10, 10)])
            assert new_pages.give_up(session, held, PageTimeout())

    def test_the_dispatcher_sends(self) -> None:
        from shared.status import Lane
        from shared.turns import Demand

        with transaction() as session:
            _, units = make_prepared(session, 3)
            queue = units[0].queue
        with acting_as(Role.DISPATCHER), transaction() as session:
            workers.live_slots(session)
            demand = turns.demand(session, [queue])[queue]
            assert demand[Lane.INTERACTIVE] == Demand(is_due=True, busy=0)
            picked = turns.pick(session, queue, Lane.INTERACTIVE, 2)
            assert len(picked) == 2
            turns.unsend(session, picked)

    def test_the_sweeper_takes_every_step(self) -> None:
        from worker import sweeper

        steps = [
            sweeper.rescue,
            sweeper.end_exhausted,
            sweeper.resend,
            sweeper.end_overdue,
            sweeper.expire,
            sweeper.purge,
            sweeper.check_tombstones,
            sweeper.forget_workers,
            sweeper.forget_glances,
        ]
        _something_for_every_step_of_the_sweeper()

        with acting_as(Role.SWEEPER):
            did = {step.__name__: step() for step in steps}

        assert all(did.values()), did

    def test_the_workers_have_connections_when_the_gateway_has_used_up_its_own(self) -> None:
        engine = create_engine(acting.url_of(Role.GATEWAY))
        acting.engine_of(Role.GATEWAY).dispose()
        _until_it_has_no_connection(Role.GATEWAY)
        _limit(2)
        try:
            with engine.connect() as first, engine.connect() as second:
                assert first.execute(text("SELECT 1")).scalar() == 1
                assert second.execute(text("SELECT 1")).scalar() == 1
                with pytest.raises(DatabaseUnavailable), serving(None) as session:
                    session.execute(text("SELECT 1"))
                with acting_as(Role.WORKER), transaction() as worker:
                    assert worker.execute(text("SELECT 1")).scalar() == 1
        finally:
            engine.dispose()
            _limit(100)


def _limit(connections: int) -> None:
    with transaction() as session:
        session.execute(text(f"ALTER ROLE octavo_gateway CONNECTION LIMIT {connections}"))


def _until_it_has_no_connection(role: Role) -> None:
    """A server process ends some time after its client has closed the connection."""
    _kill(role)
    ends_at = time.monotonic() + 20
    while _connections(role):
        assert time.monotonic() < ends_at, f"{role} has connections still"
        time.sleep(0.02)


def _connections(role: Role) -> int:
    with transaction() as session:
        return int(session.execute(text(CONNECTIONS), {"role": role}).scalar_one())


def _something_for_every_step_of_the_sweeper() -> None:
    with transaction() as session:
        before = session.execute(text("SELECT now() - interval '1 day'")).scalar_one()
        for kind in (WorkKind.PREPARE, WorkKind.RECOGNISE):  # exhausted, each ends otherwise
            job, units = make_prepared(session, 1)
            unit = units[0] if kind is WorkKind.RECOGNISE else None
            if unit is None:
                job = make_job(session)
                unit = work_of(session, job, WorkKind.PREPARE)[0]
                new_pages.begin(session, claimed(session, unit), job, 2)
            else:
                claimed(session, unit)
            exhausted = "UPDATE work SET failures = 99 WHERE id = :id"
            session.execute(text(exhausted), {"id": unit.id})
        watched, [held] = make_prepared(session, 1)
        glances.watch(session, watched.tenant, watched.id, 1)
        session.execute(text("UPDATE glances SET wanted_until = now() - interval '1 s'"))
        claimed(session, held)  # overdue, to be rescued
        overdue(session)
        lost = make_prepared(session, 1)[1][0]
        lost.sent_at = before
        late, outlived, deleted = (make_job(session) for _ in range(3))
        late.deadline_at = before
        jobs.cancel(session, outlived.tenant, outlived.id)
        outlived.expires_at = before
        jobs.delete(session, deleted.tenant, deleted.id)
        gone = {"job_id": uuid4(), "tenant": late.tenant, "rows": 1, "objects": 1}
        session.add(Tombstone(deleted_at=before, check_at=before, **gone))
        facts: dict[str, Any] = {"queues": ["prepare"], "slots": 1, "busy": 0, "version": "0"}
        workers.beat(session, "gone", draining=False, device={}, **facts)
        session.execute(text("UPDATE workers SET last_seen_at = now() - interval '9 days'"))


class TestTheContext:
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        made = db.engine_for(acting.url_of(Role.GATEWAY), connections=1)
        yield made
        made.dispose()

    @pytest.fixture
    def one_connection(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        """The gateway's role has this one connection, and every transaction is the gateway's."""
        sessions = sessionmaker(engine, expire_on_commit=False)
        monkeypatch.setattr(db, "_sessions", lambda: sessions)

    def test_a_connection_forgets_whom_it_served(
        self, tenants: tuple[UUID, UUID], one_connection: None
    ) -> None:
        pids = set()
        for tenant in (*tenants, None, tenants[0]):
            with transaction(tenant) as session:
                rows = session.execute(text("SELECT tenant, pg_backend_pid() AS pid FROM work"))
                found = rows.all()
                assert {row.tenant for row in found} == ({tenant} if tenant else set())
                pids |= {row.pid for row in found}
            with transaction() as session:
                assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == 0
        assert len(pids) == 1

    @pytest.mark.parametrize("failing", ["SELECT 1 / 0", "SELEC 1", "SELECT pg_sleep(9)"])
    def test_it_forgets_after_an_error_too(
        self, tenants: tuple[UUID, UUID], one_connection: None, failing: str
    ) -> None:
        with pytest.raises((DBAPIError, DatabaseUnavailable)), transaction(tenants[0]) as session:
            session.execute(text("SET LOCAL statement_timeout = 50"))
            session.execute(text(failing))

        with transaction() as session:
            assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == 0
        with transaction(tenants[1]) as session:
            assert session.scalars(text("SELECT tenant FROM jobs")).all() == [tenants[1]]

    def test_a_transaction_that_was_never_used_leaves_nothing_to_the_next(
        self, tenants: tuple[UUID, UUID], one_connection: None
    ) -> None:
        with transaction(tenants[0]):
            pass
        with pytest.raises(ZeroDivisionError), transaction(tenants[0]):
            raise ZeroDivisionError

        with transaction() as session:
            assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == 0

    def test_a_savepoint_keeps_it(self, tenants: tuple[UUID, UUID], one_connection: None) -> None:
        with transaction(tenants[0]) as session:
            with pytest.raises(DBAPIError), session.begin_nested():
                session.execute(text("SELECT 1 / 0"))
            assert session.scalars(text("SELECT tenant FROM jobs")).all() == [tenants[0]]

    def test_it_costs_no_round_trip(
        self, tenants: tuple[UUID, UUID], one_connection: None, engine: Engine
    ) -> None:
        asked = text("SELECT query FROM pg_stat_activity WHERE pid = pg_backend_pid()")

        with transaction(tenants[0]) as session:
            query = session.execute(asked).scalar_one()

        assert query.startswith("BEGIN; SELECT set_config('octavo.tenant'")
        assert query.endswith(f"; {asked}")

    def test_who_did_nothing_leaves_nothing_to_the_next(
        self, tenants: tuple[UUID, UUID], one_connection: None
    ) -> None:
        for alone in (False, True):
            with transaction(tenants[0], alone=alone):
                pass
            with transaction() as session:
                assert session.scalars(text("SELECT tenant FROM jobs")).all() == []

    def test_a_statement_that_never_left_takes_no_tenant_with_it(
        self, tenants: tuple[UUID, UUID], one_connection: None
    ) -> None:
        with transaction(tenants[0]) as session:
            with pytest.raises(ValueError, match="NUL"):
                session.execute(text("SELECT :word"), {"word": "\0"})
            assert session.scalars(text("SELECT tenant FROM jobs")).all() == [tenants[0]]

    def test_a_statement_alone_serves_its_tenant(
        self, tenants: tuple[UUID, UUID], one_connection: None
    ) -> None:
        with transaction(tenants[0], alone=True) as session:
            assert session.scalars(text("SELECT tenant FROM jobs")).all() == [tenants[0]]
        with transaction() as session:
            assert session.scalars(text("SELECT tenant FROM jobs")).all() == []

    @pytest.fixture
    def theirs(self) -> dict[str, str]:
        return authorization()

    def test_two_tenants_share_one_connection_over_http(
        self, gateway: TestClient, theirs: dict[str, str], one_connection: None
    ) -> None:
        mine = {"Authorization": gateway.headers["Authorization"]}
        ids = {}
        for name, headers in (("mine", mine), ("theirs", theirs)):
            answer = gateway.post("/v1/jobs", content=documents.pdf(pages=1), headers=headers)
            ids[name] = answer.json()["id"]

        for round_ in range(20):
            gateway.get("/v1/jobs", params={"cursor": "bad"}, headers=mine)
            gateway.get(f"/v1/jobs/{ids['theirs']}", headers=mine)
            if round_ % 5 == 4:  # the connection dies under a request
                _kill(Role.GATEWAY)
            for name, headers in (("mine", mine), ("theirs", theirs)):
                answer = gateway.get("/v1/jobs", headers=headers)
                assert answer.status_code in {200, 503}
                if answer.status_code == 200:
                    assert [job["id"] for job in answer.json()["data"]] == [ids[name]]


def _kill(role: Role) -> None:
    engine = create_engine(settings().database_url.get_secret_value())
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = :role"
    with engine.connect() as connection:
        connection.execute(text(kill), {"role": role})
    engine.dispose()


class TestWithoutTheApplicationsFilter:
    """What `jobs` asks for with the caller's tenant, it now asks for with the owner's."""

    OPERATIONS = (
        ("GET", ""),
        ("GET", "?wait=0.1"),
        ("GET", "/pages"),
        ("GET", "/pages/1"),
        ("GET", "/pages/1/events"),
        ("GET", "/result"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    )

    @pytest.fixture
    def victim(self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch) -> str:
        """A job of the gateway's tenant that every filter of the application lets through."""
        public = finished(gateway, "victim's text", filename="victim.pdf")
        with transaction() as session:
            row = session.get_one(Job, jobs.parse_id(public))
        for name in ("get", "recent", "cancel", "delete", "_find_tombstone"):
            monkeypatch.setattr(jobs, name, _asking_for(row.tenant, getattr(jobs, name)))
        return public

    @pytest.mark.parametrize(("method", "path"), OPERATIONS)
    def test_no_foreign_job_is_there(
        self, gateway: TestClient, victim: str, method: str, path: str
    ) -> None:
        answer = gateway.request(
            method, f"/v1/jobs/{victim}{path}", headers=authorization(), json={}
        )

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert "victim" not in answer.text

    def test_no_foreign_job_is_listed(self, gateway: TestClient, victim: str) -> None:
        assert gateway.get("/v1/jobs", headers=authorization()).json()["data"] == []

    @pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/pages/1")])
    def test_it_is_the_wall_that_hides_it(
        self, gateway: TestClient, victim: str, method: str, path: str
    ) -> None:
        gateway.app.role = None  # type: ignore[attr-defined] # the owner, a superuser

        answer = gateway.request(method, f"/v1/jobs/{victim}{path}", headers=authorization())

        assert answer.status_code == 200
        assert "victim" in answer.text


def _asking_for(tenant: UUID, function: Any) -> Any:
    def ask(session: Session, _: UUID, *arguments: Any, **options: Any) -> Any:
        return function(session, tenant, *arguments, **options)

    return ask


class TestStarting:
    def test_a_gateway_that_row_security_does_not_bind_does_not_start(self) -> None:
        command = [sys.executable, "-m", "deploy.processes", "gateway", "--port", "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

        assert done.returncode == 1
        assert "the gateway connects as octavo_gateway" in done.stderr
        assert "Traceback" not in done.stderr

    def test_a_connection_that_comes_later_is_looked_at_too(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from shared.config import InvalidSettings

        unbound = db.engine_for(settings().database_url.get_secret_value())
        monkeypatch.setattr(db, "engine", lambda: unbound)
        monkeypatch.setattr(db, "_sessions", lambda: sessionmaker(unbound))
        for _ in range(2):
            with pytest.raises(InvalidSettings):
                db.refuse_unbound_role()
        unbound.dispose()


class TestAnOwnerThatIsNoSuperuser:
    """As on a managed Postgres: the owner of a database may not bypass row-level security."""

    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        admin = create_engine(
            settings().database_url.get_secret_value(), isolation_level="AUTOCOMMIT"
        )
        with admin.connect() as connection:
            connection.execute(text("CREATE ROLE plain LOGIN PASSWORD 'plain'"))
            connection.execute(text("CREATE DATABASE plain OWNER plain"))
        url = admin.url.set(username="plain", password="plain", database="plain")
        made = db.engine_for(url.render_as_string(hide_password=False))
        yield made
        made.dispose()
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE plain"))
            connection.execute(text("DROP ROLE plain"))
        admin.dispose()

    def run(self, engine: Engine, *arguments: str) -> None:
        url = engine.url.render_as_string(hide_password=False)
        environment = {"OCTAVO_DATABASE_URL": url, "OCTAVO_ROLE_PASSWORDS": "{}"}
        command = [sys.executable, *arguments]
        subprocess.run(command, env=os.environ | environment, check=True, timeout=60)

    def test_it_migrates_to_what_the_models_say_there_and_back(self, engine: Engine) -> None:
        down = "from alembic import command; from migrations import run; "
        down += "command.downgrade(run.configuration(), '0001')"
        for step in (("-m", "deploy.processes", "migrate"), ("-c", down)) * 2:
            self.run(engine, *step)
        self.run(engine, "-m", "deploy.processes", "migrate")

        with engine.connect() as connection:
            found = compare_metadata(MigrationContext.configure(connection), Model.metadata)
        assert found == []

    def test_it_works_for_all_tenants_or_for_one(self, engine: Engine) -> None:
        self.run(engine, "-m", "deploy.processes", "migrate")

        with Session(engine) as session:
            made = [make_job(session).tenant for _ in range(2)]
            assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == 2
            db.enter(session, made[0])
            assert session.scalars(text("SELECT tenant FROM jobs")).all() == [made[0]]
            find = text("SELECT count(*) FROM octavo_queue_place('interactive', now(), 'q', 9)")
            assert session.execute(find).scalar() == 1
            session.commit()
            assert session.execute(text("SELECT count(*) FROM jobs")).scalar() == 2
            key = keys.create(session, made[1])
            assert keys.authenticate(session, key).tenant == made[1]


def test_the_tenant_comes_from_the_key_and_from_nothing_else(gateway: TestClient) -> None:
    with transaction() as session:
        theirs = make_tenant(session)
        make_job(session, theirs)
    said = {"X-Tenant": str(theirs), "X-Octavo-Tenant": str(theirs), "Tenant": str(theirs)}

    listed = gateway.get("/v1/jobs", headers=said, params={"tenant": str(theirs)})
    body = documents.pdf(pages=1)
    made = gateway.post("/v1/jobs", content=body, headers=said, params={"tenant": str(theirs)})

    assert listed.json()["data"] == []
    assert (made.status_code, made.json()["code"]) == (422, "invalid_options")
