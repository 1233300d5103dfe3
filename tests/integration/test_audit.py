"""The audit log: a row for every act, nothing of a document in it, and nobody changes it."""

import json

import pytest
from click.testing import CliRunner
from sqlalchemy import select, text
from starlette.testclient import TestClient

from shared import audit, jobs, keys
from shared.audit import Action
from shared.db import transaction
from shared.models import Audit, Tenant
from tests.factory import authorization, make_tenant
from tests.operations import OPERATIONS, documented, finished, submitted

MUTATING = [named for named in documented() if named[0] not in {"GET", "HEAD", "OPTIONS"}]


def rows(request_id: str | None = None) -> list[Audit]:
    query = select(Audit).order_by(Audit.id)
    if request_id is not None:
        query = query.where(Audit.request_id == request_id)
    with transaction() as session:
        return list(session.scalars(query))


def actions() -> list[str]:
    return [row.action for row in rows()]


@pytest.mark.parametrize("named", MUTATING, ids=" ".join)
def test_every_operation_that_changes_something_leaves_a_row(
    gateway: TestClient, named: tuple[str, str]
) -> None:
    operation = OPERATIONS[named]
    assert operation.action is not None
    ask = operation.ask(gateway, named[0])

    answer = ask.by(gateway, **{"X-Request-Id": "this-one"})

    assert answer.status_code == operation.status
    [row] = rows("this-one")
    assert row.action == operation.action
    assert row.actor == gateway.headers["Authorization"].split("_")[2]
    assert row.object == answer.json()["id"]
    assert row.address == "testclient"


@pytest.mark.parametrize(
    "named", [named for named in OPERATIONS if named not in MUTATING], ids=" ".join
)
def test_of_what_changes_nothing_a_download_alone_leaves_one(
    gateway: TestClient, named: tuple[str, str]
) -> None:
    operation = OPERATIONS[named]

    operation.ask(gateway, named[0]).by(gateway, **{"X-Request-Id": "this-one"})

    assert [row.action for row in rows("this-one")] == (
        [operation.action] if operation.action else []
    )


def test_what_is_refused_or_changes_nothing_leaves_none(gateway: TestClient) -> None:
    job = finished(gateway)
    gateway.delete(f"/v1/jobs/{job}")
    waiting = submitted(gateway)
    gateway.post(f"/v1/jobs/{waiting}/cancel")
    before = len(rows())

    gateway.delete(f"/v1/jobs/{job}")
    gateway.post(f"/v1/jobs/{waiting}/cancel")
    gateway.post("/v1/jobs", content=b"no document")
    gateway.get(f"/v1/jobs/{waiting}/result")
    gateway.post(f"/v1/jobs/{waiting}/cancel", headers=authorization("jobs:write"))

    added = [row for row in rows()[before:] if not row.action.startswith("key.")]
    assert added == []


def test_a_change_that_fails_leaves_none(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError

    job = submitted(gateway)
    monkeypatch.setattr("api.present.job", fail)

    assert gateway.post(f"/v1/jobs/{job}/cancel").status_code == 500

    assert Action.JOB_CANCELLED not in actions()


def test_a_change_without_its_row_does_not_happen(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submitted(gateway)
    broken = text("INSERT INTO audit (tenant) VALUES (:tenant)").bindparams()
    monkeypatch.setattr(audit, "_RECORD", broken)

    assert gateway.post(f"/v1/jobs/{job}/cancel").status_code == 500

    assert gateway.get(f"/v1/jobs/{job}").json()["status"] == "queued"


def test_what_the_sweeper_takes_away_leaves_a_row(gateway: TestClient) -> None:
    from worker import sweeper

    expired, deleted = finished(gateway), finished(gateway)
    gateway.delete(f"/v1/jobs/{deleted}")
    with transaction() as session:
        past = text("UPDATE jobs SET expires_at = now() - interval '1 s' WHERE id = :id")
        session.execute(past, {"id": jobs.parse_id(expired)})

    sweeper.expire()
    sweeper.purge()

    found = {(row.actor, row.action, row.object) for row in rows()}
    assert ("sweeper", Action.JOB_EXPIRED, expired) in found
    assert ("sweeper", Action.JOB_PURGED, deleted) in found


def test_the_life_of_a_key_is_in_it(gateway: TestClient) -> None:
    with transaction() as session:
        key = keys.create(session, make_tenant(session), scopes=("jobs:read",))
    for _ in range(3):
        gateway.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})
    with transaction() as session:
        keys.revoke(session, key.split("_")[2])

    about = [row for row in rows() if row.object == key.split("_")[2]]

    assert [row.action for row in about] == ["key.created", "key.first_used", "key.revoked"]
    assert [row.actor for row in about] == ["operator", key.split("_")[2], "operator"]
    assert about[0].facts == {"scopes": ["jobs:read"]}


def test_nothing_of_a_document_is_in_it(gateway: TestClient) -> None:
    job = finished(gateway, "canary-text", filename="canary-name.pdf", **{"metadata.k": "canary"})
    gateway.get(f"/v1/jobs/{job}/result")
    gateway.get(f"/v1/jobs/{job}/pages/1")
    sha256 = gateway.get(f"/v1/jobs/{job}").json()["source"]["sha256"]
    gateway.post(f"/v1/jobs/{job}/retry", json={"password": "canary-password"})
    gateway.delete(f"/v1/jobs/{job}")

    with transaction() as session:
        log = "\n".join(session.scalars(text("SELECT audit::text FROM audit")))

    assert "page.read" in log
    assert "canary" not in log
    assert sha256 not in log
    assert gateway.headers["Authorization"].split("_", 3)[3] not in log


def test_the_operator_reads_it(gateway: TestClient) -> None:
    from deploy.audit import audit as command

    job = submitted(gateway)
    authorization()  # another tenant's key
    with transaction() as session:
        tenant = session.execute(
            select(Tenant.name).join(Audit, Audit.tenant == Tenant.id).where(Audit.object == job)
        ).scalar_one()

    def shown(*arguments: str) -> list[list[str]]:
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output
        return [line.split("  ") for line in done.output.splitlines()]

    everything, theirs = shown(), shown("--tenant", tenant)
    assert [line[3] for line in everything] == actions()
    assert [line[3] for line in theirs] == ["key.created", "key.first_used", "job.created"]
    created = theirs[-1]
    assert created[1:2] + created[4:5] == [tenant, job]
    assert json.loads(created[7])["media_type"] == "application/pdf"
    assert shown("--since", "2999-01-01") == []
    missing = CliRunner().invoke(command, ["--tenant", "nobody"])
    assert "There is no tenant nobody" in missing.output


def test_the_operator_reads_a_long_one_whole(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy import audit as of_operator

    monkeypatch.setattr(of_operator, "ROWS_AT_ONCE", 2)
    for _ in range(4):
        submitted(gateway)

    done = CliRunner().invoke(of_operator.audit)

    assert len(done.output.splitlines()) == len(rows())
