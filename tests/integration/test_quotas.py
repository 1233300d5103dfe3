"""What a tenant may have, and how the gateway says no: at each limit and one past it."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from unittest.mock import Mock, patch
from uuid import UUID

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from api import admission, rates
from api.app import create_app
from api.limits import Limits
from deploy.tenants import tenants
from shared import jobs, keys, new_pages, pages, quotas, storage, work, workers
from shared.config import settings
from shared.db import transaction
from shared.errors import DependencyUnavailable, PageTimeout
from shared.models import NOW, Job
from shared.quotas import Quota
from shared.roles import Role
from shared.status import JobStatus, WorkKind
from tests import documents
from tests.acting import engine_of
from tests.clock import Clock
from tests.factory import (
    authorization,
    claimed,
    make_job,
    make_prepared,
    make_tenant,
    recognition,
    work_of,
)
from worker import sweeper

PDF = documents.pdf(pages=2)


def limit(**values: float) -> None:
    """Set limits of all tenants."""
    with transaction() as session:
        for name, _ in quotas.everybody(session):
            quotas.limit(session, name, values)


def submit(gateway: TestClient, **headers: str) -> Any:
    return gateway.post("/v1/jobs", content=PDF, headers=headers)


def refused(answer: Any) -> tuple[int, str]:
    """The status and code of a refusal, which says when to come back."""
    assert 1 <= int(answer.headers["Retry-After"]) <= 300
    return answer.status_code, answer.json()["code"]


def stored() -> int:
    """How many documents the store has of tenants that there are."""
    with transaction() as session:
        tenants = session.execute(text("SELECT id FROM tenants")).scalars().all()
    found = storage.store().list_objects_v2
    return sum(
        found(Bucket=settings().store_bucket, Prefix=tenant.hex)["KeyCount"] for tenant in tenants
    )


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway looks anew for each request."""
    monkeypatch.setattr(admission, "KNOWN_SECONDS", 0.0)


class TestPrompts:
    """Whoever may send prompts of their own was allowed to by the operator."""

    ASKED = {"task": "custom", "prompt": "What is the total?"}  # noqa: RUF012

    def allow(self, flag: str) -> None:
        with transaction() as session:
            [(name, _)] = quotas.everybody(session)
        result = CliRunner().invoke(tenants, ["limit", name, flag])
        assert result.exit_code == 0, result.output

    def test_a_tenant_may_not_unless_allowed(self, gateway: TestClient, forgetful: None) -> None:
        refusal = gateway.post("/v1/jobs", content=PDF, params=self.ASKED)
        assert (refusal.status_code, refusal.json()["code"]) == (403, "prompt_not_allowed")
        assert stored() == 0

        self.allow("--custom-prompts")

        taken = gateway.post("/v1/jobs", content=PDF, params=self.ASKED)
        assert taken.json()["options"]["prompt"] == self.ASKED["prompt"]
        assert gateway.get("/v1/limits").json()["custom_prompts"] is True
        assert "custom prompts" in CliRunner().invoke(tenants, ["list"]).output

    def test_what_was_allowed_once_is_not_read_again_when_it_no_longer_is(
        self, gateway: TestClient, forgetful: None
    ) -> None:
        self.allow("--custom-prompts")
        job = gateway.post("/v1/jobs", content=PDF, params=self.ASKED).json()
        gateway.post(f"/v1/jobs/{job['id']}/cancel")
        self.allow("--no-custom-prompts")

        copied = Mock()
        with patch.object(storage, "copy", copied):
            refusal = gateway.post(f"/v1/jobs/{job['id']}/retry", json={})

        assert (refusal.status_code, refusal.json()["code"]) == (403, "prompt_not_allowed")
        assert not copied.called

    def test_every_tenant_may_use_the_prompts_that_there_are(self, gateway: TestClient) -> None:
        for task in ("markdown", "text", "figure", "describe"):
            assert gateway.post("/v1/jobs", content=PDF, params={"task": task}).status_code == 202


class TestFootprints:
    """Counted by the database; compared with what there is."""

    def counted(self, session: Session, tenant: UUID) -> tuple[int, int, int]:
        found = quotas.settled(session, tenant)
        return found.open_jobs, found.open_pages, found.stored_bytes

    def test_a_jobs_whole_life(self, session: Session) -> None:
        tenant = make_tenant(session)
        assert self.counted(session, tenant) == (0, 0, 0)
        job = make_job(session, tenant, source_bytes=100)
        assert self.counted(session, tenant) == (1, 1, 100)

        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
        new_pages.begin(session, held, job, 3)
        assert self.counted(session, tenant) == (1, 3, 100)
        new_pages.add(session, held, [new_pages.Rendered(n, "key", 1, 1) for n in (1, 2, 3)])
        for unit in work_of(session, job, WorkKind.RECOGNISE):
            pages.succeed(session, claimed(session, unit), recognition())
        assert self.counted(session, tenant) == (1, 3, 100)
        held = claimed(session, work_of(session, job, WorkKind.ASSEMBLE)[0])
        jobs.finish(session, held, JobStatus.SUCCEEDED)
        assert self.counted(session, tenant) == (0, 0, 100)

        jobs.expire(session, job.id)
        assert self.counted(session, tenant) == (0, 0, 0)
        jobs.delete(session, tenant, job.id)
        jobs.purge(session, job.id, objects=0)
        assert self.counted(session, tenant) == (0, 0, 0)

    def test_a_deleted_job_is_stored_until_its_objects_are_gone(self, session: Session) -> None:
        job, _ = make_prepared(session, 2, source_bytes=100)

        jobs.delete(session, job.tenant, job.id)
        assert self.counted(session, job.tenant) == (0, 0, 100)

        jobs.purge(session, job.id, objects=0)
        assert self.counted(session, job.tenant) == (0, 0, 0)

    @pytest.mark.parametrize("end", ["cancelled", "failed"])
    def test_a_job_that_ends_otherwise(self, session: Session, end: str) -> None:
        job = make_job(session)
        if end == "cancelled":
            jobs.cancel(session, job.tenant, job.id)
        else:
            held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
            jobs.fail(session, held, PageTimeout())

        assert self.counted(session, job.tenant)[:2] == (0, 0)

    def test_they_are_right_after_many_transactions_at_once(self) -> None:
        with transaction() as session:
            tenant = make_tenant(session)

        def live(number: int) -> None:
            with transaction() as session:
                job = make_job(session, tenant, source_bytes=number)
            if number % 2:
                with transaction() as session:
                    jobs.cancel(session, tenant, job.id)

        with ThreadPoolExecutor(8) as clients:
            list(clients.map(live, range(40)))

        with transaction() as session:
            found = quotas.standing(session, tenant)
        assert (found.open_jobs, found.open_pages) == (20, 20)
        assert found.stored_bytes == sum(range(40))


@pytest.mark.usefixtures("forgetful")
class TestLimits:
    def test_one_job_more_than_may_be_open(self, gateway: TestClient) -> None:
        limit(max_open_jobs=2)
        first = submit(gateway).json()
        assert submit(gateway).status_code == 202

        assert refused(submit(gateway)) == (429, "too_many_in_flight")

        gateway.post(f"/v1/jobs/{first['id']}/cancel")
        assert submit(gateway).status_code == 202

    def test_pages_count_until_their_job_has_ended(self, gateway: TestClient) -> None:
        limit(max_open_pages=3)
        job = submit(gateway).json()
        with transaction() as session:
            row = session.get_one(Job, jobs.parse_id(job["id"]))
            new_pages.begin(
                session, claimed(session, work_of(session, row, WorkKind.PREPARE)[0]), row, 2
            )
        assert submit(gateway).status_code == 202  # two pages, and one not opened

        assert refused(submit(gateway)) == (429, "too_many_in_flight")

    def test_one_byte_more_than_may_be_stored(self, gateway: TestClient) -> None:
        limit(max_stored_bytes=2 * len(PDF))
        first, _ = submit(gateway).json(), submit(gateway).json()

        assert refused(submit(gateway)) == (429, "quota_exceeded")

        gateway.delete(f"/v1/jobs/{first['id']}")
        sweeper.purge()
        assert submit(gateway).status_code == 202

    def test_a_body_without_a_length_is_refused_when_it_is_too_long_after_all(
        self, gateway: TestClient
    ) -> None:
        limit(max_stored_bytes=len(PDF) - 1)

        answer = gateway.post("/v1/jobs", content=iter([PDF]))

        assert refused(answer) == (429, "quota_exceeded")
        assert stored() == 0

    def test_a_tenants_limit_is_not_anothers(self, gateway: TestClient) -> None:
        limit(max_open_jobs=1)
        submit(gateway)
        assert submit(gateway).status_code == 429

        assert submit(gateway, **authorization()).status_code == 202

    def test_reading_again_makes_a_job_too(self, gateway: TestClient) -> None:
        limit(max_open_jobs=1)
        job = submit(gateway).json()
        gateway.post(f"/v1/jobs/{job['id']}/cancel")
        submit(gateway)

        assert refused(gateway.post(f"/v1/jobs/{job['id']}/retry", json={})) == (
            429,
            "too_many_in_flight",
        )

    def test_what_was_accepted_is_given_again_to_a_tenant_over_its_limit(
        self, gateway: TestClient
    ) -> None:
        limit(max_open_jobs=1)
        first = submit(gateway, **{"Idempotency-Key": "k"})

        assert submit(gateway, **{"Idempotency-Key": "k"}).json()["id"] == first.json()["id"]
        assert submit(gateway, **{"Idempotency-Key": "other"}).status_code == 429
        with transaction() as session:
            keys = session.execute(text("SELECT key FROM idempotency_keys")).scalars().all()
        assert keys == ["k"]

    def test_they_are_shown_with_what_is_used(self, gateway: TestClient) -> None:
        limit(max_open_jobs=7, max_requests_per_second=250)
        submit(gateway)

        assert gateway.get("/v1/limits").json() == {
            "open_jobs": {"limit": 7, "used": 1},
            "open_pages": {"limit": settings().max_open_pages, "used": 1},
            "stored_bytes": {"limit": settings().max_stored_bytes, "used": len(PDF)},
            "requests_per_second": 250,
            "custom_prompts": False,
        }


def test_a_limit_is_exact_also_for_many_requests_at_once(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "KNOWN_SECONDS", 3600.0)  # nothing is seen beforehand
    limit(max_open_jobs=5)

    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: submit(gateway), range(16)))

    assert sorted(answer.status_code for answer in answers) == [202] * 5 + [429] * 11
    assert stored() == 5


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that the buckets go by."""
    clock = Clock()
    monkeypatch.setattr(rates, "time", clock)
    return clock


class TestRequestsASecond:
    def test_a_burst_is_allowed_and_the_next_is_told_when_to_come_back(
        self, gateway: TestClient, clock: Clock
    ) -> None:
        limit(max_requests_per_second=2)

        answers = [gateway.get("/v1/jobs") for _ in range(5)]

        assert [answer.status_code for answer in answers] == [200] * 4 + [429]
        assert refused(answers[-1]) == (429, "rate_limited")
        clock.now += int(answers[-1].headers["Retry-After"])
        assert gateway.get("/v1/jobs").status_code == 200

    def test_another_tenant_does_not_notice(self, gateway: TestClient) -> None:
        limit(max_requests_per_second=1)
        while gateway.get("/v1/jobs").status_code == 200:
            pass

        assert gateway.get("/v1/jobs", headers=authorization()).status_code == 200

    @pytest.mark.usefixtures("clock")
    def test_every_answer_to_a_tenant_says_what_is_left(self, gateway: TestClient) -> None:
        limit(max_requests_per_second=2)

        for path, remaining in (("/v1/jobs", "3"), ("/v1/jobs/job_1", "2")):
            headers = gateway.get(path).headers
            assert headers["RateLimit-Limit"] == "4"
            assert headers["RateLimit-Remaining"] == remaining
            assert int(headers["RateLimit-Reset"]) >= 1
        assert "RateLimit-Limit" not in gateway.get("/livez").headers

    def test_a_bucket_fills_at_its_rate_up_to_its_burst(self, clock: Clock) -> None:
        bucket = rates.Bucket(10)
        for _ in range(20):
            assert bucket.take(10).retry_after_seconds is None
        assert bucket.take(10).retry_after_seconds == 1

        clock.now = 0.1
        assert bucket.take(10).retry_after_seconds is None
        assert bucket.take(10).retry_after_seconds == 1
        clock.now = 3600
        assert bucket.take(10).remaining == 19


@pytest.mark.usefixtures("forgetful")
class TestOverload:
    def worker(self, slots: int) -> None:
        with transaction() as session:
            workers.beat(
                session,
                "worker",
                queues=[work.recognise_queue("fake")],
                slots=slots,
                busy=0,
                draining=False,
                version="0",
                device={},
            )

    def a_page_took(self, seconds: float) -> None:
        """A job has ended by which it can be told."""
        with transaction() as session:
            make_job(
                session,
                status=JobStatus.SUCCEEDED,
                pages_total=1,
                pages_succeeded=1,
                engine_seconds=seconds,
                expires_at=NOW + timedelta(hours=1),
            )

    def backlog(self, pages_total: int) -> None:
        """Another tenant has so much waiting."""
        with transaction() as session:
            make_job(session, pages_total=pages_total)

    def test_a_tenant_that_would_wait_too_long_hears_so(
        self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(vars(settings()), "max_queue_seconds", 9)
        self.worker(slots=2)
        self.a_page_took(4)  # so half a page a second
        for _ in range(5):
            assert submit(gateway).status_code == 202

        answer = submit(gateway)

        assert refused(answer) == (503, "overloaded")
        assert "about 10 seconds" in answer.json()["detail"]
        self.worker(slots=20)
        assert submit(gateway).status_code == 202

    def test_another_tenants_long_queue_is_no_reason(
        self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(vars(settings()), "max_queue_seconds", 9)
        self.worker(slots=2)
        self.a_page_took(4)
        self.backlog(100_000)

        assert submit(gateway).status_code == 202

    def test_while_nothing_is_known_of_the_pace_work_is_taken(self, gateway: TestClient) -> None:
        self.backlog(100_000)
        assert submit(gateway).status_code == 202

        self.a_page_took(60)  # yet nobody is there who reads
        assert submit(gateway).status_code == 202

    def test_one_tenant_cannot_take_all_places_for_uploads(
        self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(vars(settings()), "max_tenant_uploads", 1)
        with transaction() as session:
            [tenant] = session.execute(text("SELECT id FROM tenants")).scalars()

        with gateway.app.state.admission.uploading(tenant):  # type: ignore[attr-defined] # FastAPI's
            assert refused(submit(gateway)) == (429, "too_many_in_flight")
            assert submit(gateway, **authorization()).status_code == 202

        assert submit(gateway).status_code == 202

    def test_one_tenant_cannot_take_all_places_of_those_who_wait(self, gateway: TestClient) -> None:
        job = submit(gateway).json()["id"]
        other = authorization()
        theirs = submit(gateway, **other).json()["id"]
        with transaction() as session:
            tenant = session.execute(
                text("SELECT tenant FROM jobs WHERE id = :id"), {"id": jobs.parse_id(job)}
            ).scalar_one()

        with ExitStack() as places:
            for _ in range(settings().max_tenant_waiters):
                waiters = gateway.app.state.limits.tenant_waiters  # type: ignore[attr-defined] # FastAPI's
                places.enter_context(waiters.taken(tenant, "waiting clients"))
            mine = gateway.get(f"/v1/jobs/{job}", params={"wait": 0.01})
            foreign = gateway.get(f"/v1/jobs/{theirs}", params={"wait": 0.01}, headers=other)

        assert refused(mine) == (429, "too_many_in_flight")
        assert foreign.status_code == 200
        assert gateway.get(f"/v1/jobs/{job}", params={"wait": 0.01}).status_code == 200

    def test_a_full_gateway_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(vars(settings()), "max_uploads", 0)

        with TestClient(create_app(), headers=authorization()) as gateway:
            assert refused(submit(gateway)) == (503, "overloaded")

    def test_a_gateway_that_cannot_have_a_connection_says_so(
        self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = engine_of(Role.GATEWAY)
        pool = engine.pool
        monkeypatch.setattr(pool, "_timeout", 0.1)
        taken = [engine.connect() for _ in range(pool.size())]  # type: ignore[attr-defined] # a QueuePool

        try:
            assert refused(submit(gateway)) == (503, "dependency_unavailable")
        finally:
            for connection in taken:
                connection.close()

    def test_a_gateway_that_ends_says_when_to_come_back(self, gateway: TestClient) -> None:
        gateway.app.state.draining.set()  # type: ignore[attr-defined] # FastAPI's

        assert refused(gateway.get("/readyz")) == (503, "overloaded")


class TestTheStoresGuard:
    def fail(self, limits: Limits) -> None:
        with pytest.raises(DependencyUnavailable), limits.store.guarded():
            raise DependencyUnavailable("The object store does not answer.")

    def test_a_dead_store_is_not_waited_for_by_everybody(self) -> None:
        limits = Limits()
        for _ in range(3):
            self.fail(limits)
        asked = False

        with pytest.raises(DependencyUnavailable) as raised, limits.store.guarded():
            asked = True

        assert not asked
        assert raised.value.retry_after_seconds

    def test_one_looks_now_and_then_and_lets_the_others_in_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Limits().store.__class__, "LOOK_SECONDS", 0.1)
        limits = Limits()
        for _ in range(3):
            self.fail(limits)
        time.sleep(0.15)

        with limits.store.guarded(), pytest.raises(DependencyUnavailable):
            limits.store.guarded().__enter__()

        for _ in range(2):
            with limits.store.guarded():
                pass

    def test_a_single_failure_is_nobodys_guard(self) -> None:
        limits = Limits()
        for _ in range(2):
            self.fail(limits)
        with limits.store.guarded():
            pass
        for _ in range(2):
            self.fail(limits)

        with limits.store.guarded():
            pass


def test_pollers_stay_away_the_longer_the_more_stands_before_their_job(
    gateway: TestClient,
) -> None:
    def asked() -> int:
        return int(submit(gateway).headers["Retry-After"])

    before = asked()
    with transaction() as session:
        make_prepared(session, 300)

    assert before == 1
    assert asked() >= 10


class TestTheOperatorsCommand:
    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(tenants, arguments)

    @pytest.fixture
    def tenant(self) -> str:
        with transaction() as session:
            keys.create_tenant(session, "acme")
        return "acme"

    def limits(self) -> Quota:
        with transaction() as session:
            [(_, found)] = quotas.everybody(session)
        return found.quota

    def test_it_sets_limits_and_takes_them_back(self, tenant: str) -> None:
        default = self.limits()

        assert self.run("limit", tenant, "--open-jobs", "7", "--requests", "0.5").exit_code == 0
        assert self.limits().open_jobs == 7
        assert self.limits().requests_per_second == 0.5
        assert self.limits().stored_bytes == default.stored_bytes

        self.run("limit", tenant, "--open-jobs", "default", "--requests", "default")
        assert self.limits() == default

    def test_it_shows_what_each_tenant_has_of_what_it_may(self, tenant: str) -> None:
        self.run("limit", tenant, "--open-jobs", "7", "--weight", "2")
        with transaction() as session:
            found = keys.find_tenant(session, tenant)
            make_job(session, found, source_bytes=100)

        shown = self.run("list").output

        assert shown.startswith("acme  jobs 1/7  pages 1/200000  bytes 100/")
        assert "weight 2" in shown

    @pytest.mark.parametrize(
        "arguments",
        [
            ["acme"],
            ["acme", "--open-jobs", "0"],
            ["acme", "--open-jobs", "1.5"],
            ["acme", "--requests", "nan"],
            ["acme", "--weight", "0"],
            ["nobody", "--open-jobs", "1"],
        ],
        ids=" ".join,
    )
    def test_what_is_no_limit_changes_nothing(self, tenant: str, arguments: list[str]) -> None:
        before = self.limits()

        assert self.run("limit", *arguments).exit_code != 0

        assert self.limits() == before
