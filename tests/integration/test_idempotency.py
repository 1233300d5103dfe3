"""A request that is sent again under its key makes one job: on the real database and store."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import text
from starlette.testclient import TestClient

from api import once
from shared import idempotency, jobs, storage
from shared.config import settings
from shared.db import transaction
from shared.errors import DatabaseUnavailable, IdempotencyInFlight
from shared.idempotency import Answered, Mark
from tests import documents
from tests.acting import acting_as
from tests.factory import authorization
from worker import sweeper

PDF = documents.pdf(pages=2)
OTHER = documents.pdf(pages=3)


def submit(gateway: TestClient, key: str | None, body: bytes = PDF, **options: str) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return gateway.post("/v1/jobs", content=body, params=options, headers=headers)


def objects() -> list[str]:
    """The keys of all documents in the store that belong to a job, or to none."""
    listed = storage.store().list_objects_v2(Bucket=storage._bucket())  # noqa: SLF001
    return [found["Key"] for found in listed.get("Contents", [])]


def count(table: str) -> int:
    with transaction() as session:
        found: int = session.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()  # noqa: S608
    return found


def begin(gateway: TestClient, key: str) -> Mark:
    """What a gateway does before it takes a document, and then it dies."""
    with transaction() as session:
        [tenant] = session.execute(text("SELECT tenant FROM api_keys")).scalars()
        mark = idempotency.begin(session, tenant, "submit", key)
    assert isinstance(mark, Mark)
    return mark


def held_until() -> datetime:
    """When the lease of the one mark runs out that there is."""
    with transaction() as session:
        until = session.execute(text("SELECT held_until FROM idempotency_keys")).scalar_one()
    assert isinstance(until, datetime)
    return until


def lease_over() -> None:
    with transaction() as session:
        session.execute(text("UPDATE idempotency_keys SET held_until = now() - interval '1 s'"))


def day_later() -> None:
    with transaction() as session:
        session.execute(text("UPDATE idempotency_keys SET expires_at = now() - interval '1 s'"))


@pytest.fixture(autouse=True)
def _empty_store() -> None:
    for key in objects():
        storage.delete_prefix(key)


class TestTheSameKey:
    def test_with_the_same_request_gives_the_same_job(self, gateway: TestClient) -> None:
        first, again = (submit(gateway, "k", pages="1", filename="a.pdf") for _ in range(2))

        assert (first.status_code, again.status_code) == (202, 202)
        assert first.json()["id"] == again.json()["id"]
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["Location"] == first.headers["Location"]
        assert count("jobs") == len(objects()) == 1

    def test_may_be_sent_another_way(self, gateway: TestClient) -> None:
        first = submit(gateway, "k", filename="a.pdf", pages="1-2")

        again = gateway.post(
            "/v1/jobs",
            files=[("options", (None, '{"pages": "1-2"}')), ("file", ("a.pdf", PDF))],
            headers={"Idempotency-Key": "k"},
        )

        assert again.json()["id"] == first.json()["id"]
        assert len(objects()) == 1

    @pytest.mark.parametrize(
        "changed",
        [
            {"body": OTHER},
            {"pages": "2"},
            {"filename": "b.pdf"},
            {"priority": "batch"},
            {"metadata.case": "B"},
        ],
        ids=["document", "pages", "name", "priority", "metadata"],
    )
    def test_with_another_request_is_refused(self, gateway: TestClient, changed: Any) -> None:
        asked: dict[str, Any] = {"pages": "1", "filename": "a.pdf", "metadata.case": "A"}
        submit(gateway, "k", **asked)

        answer = submit(gateway, "k", **(asked | changed))

        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_mismatch")
        assert count("jobs") == len(objects()) == 1

    def test_with_another_password_is_another_request_and_the_row_does_not_tell_it(
        self, gateway: TestClient
    ) -> None:
        def sent(password: str) -> Any:
            headers = {"Idempotency-Key": "k", "Octavo-Document-Password": password}
            return gateway.post("/v1/jobs", content=PDF, headers=headers)

        assert sent("tr0ub4dor").status_code == 202
        assert sent("tr0ub4dor").headers["Idempotency-Replayed"] == "true"
        assert sent("other").json()["code"] == "idempotency_mismatch"
        with transaction() as session:
            rows = session.execute(text("SELECT idempotency_keys::text FROM idempotency_keys"))
            assert "tr0ub4dor" not in str(rows.all())

    def test_of_another_tenant_is_another_key(self, gateway: TestClient) -> None:
        first = submit(gateway, "k")

        other = gateway.post(
            "/v1/jobs", content=PDF, headers={"Idempotency-Key": "k", **authorization()}
        )

        assert other.status_code == 202
        assert other.json()["id"] != first.json()["id"]

    def test_after_a_day_makes_a_new_job_and_the_sweeper_forgets_it(
        self, gateway: TestClient
    ) -> None:
        first = submit(gateway, "k").json()["id"]
        day_later()
        assert submit(gateway, "k").json()["id"] != first
        assert sweeper.forget_keys() == 0

        day_later()

        assert sweeper.forget_keys() == 1
        assert count("idempotency_keys") == 0

    def test_of_a_job_that_was_deleted_does_not_bring_it_back(self, gateway: TestClient) -> None:
        job = submit(gateway, "k").json()
        gateway.delete(f"/v1/jobs/{job['id']}")

        marked = submit(gateway, "k")
        sweeper.purge()
        purged = submit(gateway, "k")

        assert marked.json()["code"] == purged.json()["code"] == "job_deleted"
        assert count("jobs") == len(objects()) == 0

    def test_fifty_times_at_once_makes_one_job(self, gateway: TestClient) -> None:
        with ThreadPoolExecutor(16) as clients:
            answers = list(clients.map(lambda _: submit(gateway, "k"), range(50)))

        assert {answer.status_code for answer in answers} <= {202, 409}
        assert len({answer.json()["id"] for answer in answers if answer.is_success}) == 1
        for answer in answers:
            if answer.status_code == 409:
                assert answer.json()["code"] == "idempotency_in_flight"
                assert int(answer.headers["Retry-After"]) >= 1
        assert count("jobs") == len(objects()) == 1


class TestARequestThatCameToNothing:
    def test_leaves_its_key_free(self, gateway: TestClient) -> None:
        assert submit(gateway, "k", b"no document").json()["code"] == "unsupported_format"

        answer = submit(gateway, "k")

        assert answer.status_code == 202
        assert "Idempotency-Replayed" not in answer.headers

    def test_blocks_its_key_until_its_lease_is_over_where_its_gateway_died(
        self, gateway: TestClient
    ) -> None:
        begin(gateway, "k")
        blocked = submit(gateway, "k")
        assert (blocked.status_code, blocked.json()["code"]) == (409, "idempotency_in_flight")
        assert int(blocked.headers["Retry-After"]) >= 1
        assert objects() == []

        lease_over()

        assert submit(gateway, "k").status_code == 202
        assert count("jobs") == 1

    def test_changes_nothing_once_another_has_taken_over(self, gateway: TestClient) -> None:
        late = begin(gateway, "k")
        lease_over()
        job = submit(gateway, "k").json()

        with pytest.raises(IdempotencyInFlight), transaction() as session:
            idempotency.answer(session, late, job_id=uuid.uuid4(), fingerprint=b"late")
        with transaction() as session:
            idempotency.give_up(session, late)

        with transaction() as session:
            found = idempotency.find(session, late.tenant, "submit", "k")
        assert isinstance(found, Answered)
        assert found.job_id == jobs.parse_id(job["id"])

    def test_takes_its_document_away_where_its_mark_was_lost_on_the_way(
        self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from api import uploads

        receive = uploads.receive

        async def slow(chunks: Any, key: str | None) -> Any:
            received = await receive(chunks, key)
            with acting_as(None), transaction() as session:
                session.execute(text("UPDATE idempotency_keys SET holder = gen_random_uuid()"))
            return received

        monkeypatch.setattr(uploads, "receive", slow)

        answer = submit(gateway, "k")

        assert answer.json()["code"] == "idempotency_in_flight"
        assert count("jobs") == len(objects()) == 0

    def test_may_have_come_to_something_after_all(
        self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The database dies between the commit and its answer: the retry finds the job."""
        from api.routes import submit as route

        create = route._create  # noqa: SLF001

        def cut(*arguments: Any) -> None:
            create(*arguments)
            raise DatabaseUnavailable("The database does not answer.", retry_after_seconds=2)

        monkeypatch.setattr(route, "_create", cut)
        ambiguous = submit(gateway, "k")
        monkeypatch.undo()

        again = submit(gateway, "k")

        assert ambiguous.status_code == 503
        assert again.headers["Idempotency-Replayed"] == "true"
        assert count("jobs") == len(objects()) == 1


def test_a_mark_is_renewed_while_the_document_comes_in_and_no_longer(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(settings()), "idempotency_lease_seconds", 0.6)
    mark = begin(gateway, "k")
    begun = held_until()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(4):
            yield b"a piece"
            await asyncio.sleep(0.3)

    async def take_all() -> list[datetime]:
        return [held_until() async for _ in once.kept(body(), mark)]

    held = [begun, *asyncio.run(take_all()), held_until()]
    assert held == sorted(held)
    assert len({*held}) == 1 + 3  # not at the first piece, and at each after it

    time.sleep(0.7)
    assert held_until() == held[-1]
    with transaction() as session:
        assert isinstance(idempotency.begin(session, mark.tenant, mark.route, mark.key), Mark)


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "caf\xe9"], ids=repr)
def test_a_key_is_short_and_printable(gateway: TestClient, key: str) -> None:
    headers = {b"Idempotency-Key": key.encode("latin-1")}

    answer = gateway.post("/v1/jobs", content=PDF, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_options")
    assert "Idempotency-Key" in answer.json()["detail"]


def test_the_longest_key_is_taken(gateway: TestClient) -> None:
    assert submit(gateway, "~" * 255).status_code == 202


def test_without_a_key_every_request_is_another(gateway: TestClient) -> None:
    assert submit(gateway, None).json()["id"] != submit(gateway, None).json()["id"]
    assert count("idempotency_keys") == 0


def test_reading_again_is_done_once_too(gateway: TestClient) -> None:
    job = submit(gateway, None).json()
    gateway.post(f"/v1/jobs/{job['id']}/cancel")

    def retried(wish: dict[str, str]) -> Any:
        headers = {"Idempotency-Key": "k"}
        return gateway.post(f"/v1/jobs/{job['id']}/retry", json=wish, headers=headers)

    first, again, other = retried({}), retried({"pages": "failed"}), retried({"pages": "all"})

    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotency-Replayed"] == "true"
    assert other.json()["code"] == "idempotency_mismatch"
    assert count("jobs") == len(objects()) == 2
