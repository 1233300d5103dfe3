"""Whether the gateway says that it can serve, and that it lives, while the database does not."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api import readiness
from shared import schema
from shared.db import POOL_WAIT_SECONDS, transaction
from shared.roles import Role
from tests.acting import engine_of


@pytest.fixture(autouse=True)
def _ask_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "REMEMBERED_SECONDS", (0, 0))


@contextmanager
def revision(number: str) -> Iterator[None]:
    """Let the database be at another revision."""
    change = text("UPDATE alembic_version SET version_num = :number")
    with transaction() as session:
        session.execute(change, {"number": number})
    try:
        yield
    finally:
        with transaction() as session:
            session.execute(change, {"number": schema.REVISION})


def test_the_code_knows_the_newest_revision() -> None:
    from migrations import run

    assert run.head() == schema.REVISION


def test_a_schema_that_is_too_old_makes_it_unready_and_says_the_mend(gateway: TestClient) -> None:
    with revision("0001"):
        answer = gateway.get("/readyz")

    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert "octavo migrate" in answer.json()["detail"]


def test_a_schema_that_is_newer_does_not(gateway: TestClient) -> None:
    with revision("9999"):
        assert gateway.get("/readyz").status_code == 200


def test_a_database_that_does_not_answer_within_a_second_makes_it_unready(
    gateway: TestClient,
) -> None:
    with transaction() as session:
        session.execute(text("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE"))
        answers, seconds = [], []
        for _ in range(2):  # the second finds the first's question
            began = time.monotonic()
            answers.append(gateway.get("/readyz"))
            seconds.append(time.monotonic() - began)
        lives = gateway.get("/livez")

    assert [answer.status_code for answer in answers] == [503, 503]
    assert min(seconds) < 2 * readiness.ANSWER_SECONDS
    assert lives.status_code == 200
    assert _soon_ready(gateway)


def test_requests_that_take_all_connections_are_no_outage(gateway: TestClient) -> None:
    engine = engine_of(Role.GATEWAY)
    pool = engine.pool
    taken = [engine.connect() for _ in range(pool.size())]  # type: ignore[attr-defined]
    try:
        assert gateway.get("/readyz").status_code == 200
        assert gateway.get("/v1/jobs").status_code == 503
    finally:
        for connection in taken:
            connection.close()


def test_it_lives_while_every_thread_waits_for_the_database(gateway: TestClient) -> None:
    with transaction() as session:
        session.execute(text("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE"))
        crowd = [threading.Thread(target=gateway.get, args=["/v1/jobs"]) for _ in range(60)]
        for each in crowd:
            each.start()
        began = time.monotonic()
        assert gateway.get("/livez").status_code == 200
        assert time.monotonic() - began < POOL_WAIT_SECONDS
    for each in crowd:
        each.join()


def _soon_ready(gateway: TestClient) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if gateway.get("/readyz").status_code == 200:
            return True
        time.sleep(0.1)
    return False
