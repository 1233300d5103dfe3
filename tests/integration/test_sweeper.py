"""The sweeper: each step is safe to do twice, and none stops the others."""

import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import jobs, ladder, pages, storage, turns, work, workers
from shared.config import settings
from shared.db import transaction
from shared.document import FinishReason, Flaw
from shared.errors import DependencyUnavailable
from shared.models import Job, Tombstone, Work
from shared.options import Task
from shared.roles import Role
from shared.status import JobStatus, WorkKind
from tests.acting import acting_as
from tests.factory import (
    claimed,
    make_job,
    make_prepared,
    make_tenant,
    overdue,
    recognition,
    work_of,
)
from worker import deserted, sweeper
from worker.sweeper import Sweeper


def settle(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    changed = settings().model_copy(update=values)
    for module in (sweeper, deserted, work):
        monkeypatch.setattr(module, "settings", lambda: changed)


def failures_of(unit: Work) -> int:
    with transaction() as session:
        query = text("SELECT failures FROM work WHERE id = :id")
        return int(session.execute(query, {"id": unit.id}).scalar_one())


def deleted_job() -> Job:
    with transaction() as session:
        job = make_job(session)
        jobs.delete(session, job.tenant, job.id)
    return job


def test_two_sweepers_may_purge_the_same_job() -> None:
    job = deleted_job()
    with transaction() as session:
        jobs.purge(session, job.id, objects=1)
    with transaction() as session:
        jobs.purge(session, job.id, objects=0)

    with transaction() as session:
        assert session.get_one(Tombstone, job.id).objects == 1


def test_two_sweepers_may_expire_the_same_job(session: Session) -> None:
    job = make_job(session)
    jobs.fail(
        session,
        claimed(session, work_of(session, job, WorkKind.PREPARE)[0]),
        DependencyUnavailable(),
    )
    jobs.expire(session, job.id)
    jobs.expire(session, job.id)

    assert session.get_one(Job, job.id).finished_as is JobStatus.FAILED


def test_retention_forgets_drafts_of_pages_too(session: Session) -> None:
    job, _ = make_prepared(session, 1)
    session.execute(text("UPDATE pages SET draft = 'read before, with a flaw'"))
    jobs.cancel(session, job.tenant, job.id)
    jobs.expire(session, job.id)

    assert session.execute(text("SELECT draft FROM pages")).scalars().all() == [None]


def handed_over(session: Session) -> Work:
    """A page that was read with a flaw, and is to be read by `paddle`."""
    _, [unit] = make_prepared(session, 1)
    held = claimed(session, unit)
    cut = recognition("cut o", mode="gundam", finish_reason=FinishReason.LENGTH)
    outcome = ladder.outcome(None, cut, flaw=Flaw.LENGTH, task=Task.MARKDOWN, others=["paddle"])
    assert ladder.conclude(session, held, outcome)
    return unit


def test_a_draft_stands_once_the_next_engine_has_had_no_worker_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settle(monkeypatch, fallback_engines=("paddle",))
    with transaction() as session:
        unit = handed_over(session)
        _, [of_its_own] = make_prepared(session, 1, engine="paddle")
    sweeping = Sweeper()
    sweeping.round()
    with transaction() as session:
        assert pages.finished(session, unit.job_id) == []

    monkeypatch.setattr(deserted, "PATIENCE_SECONDS", 0)
    with acting_as(Role.SWEEPER):
        sweeping.round()
    with transaction() as session:
        [page] = pages.finished(session, unit.job_id)
        assert (page.text, page.needs_review) == ("cut o", True)
        assert [one.flaw for one in page.tries] == ["length", "engine_unavailable"]
        assert pages.finished(session, of_its_own.job_id) == []


def test_an_engine_that_has_a_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    settle(monkeypatch, fallback_engines=("paddle",))
    monkeypatch.setattr(deserted, "PATIENCE_SECONDS", 0)
    with transaction() as session:
        unit = handed_over(session)
        queues = ["recognise.paddle"]
        workers.beat(
            session, "w", queues=queues, slots=1, busy=0, draining=False, version="1", device={}
        )
    Sweeper().round()
    with transaction() as session:
        assert pages.finished(session, unit.job_id) == []


def test_a_store_that_is_away_stops_neither_rescue_nor_other_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deleted_job()
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        claimed(session, unit)
        overdue(session)

    def refuse(_: str) -> int:
        raise DependencyUnavailable

    monkeypatch.setattr(storage, "delete_prefix", refuse)
    sweeping = Sweeper()
    sweeping._rescue_from = 0  # noqa: SLF001 - the grace after the start is over
    sweeping.round()
    assert failures_of(unit) == 1


def test_no_lease_is_judged_before_its_holder_could_renew_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settle(monkeypatch, heartbeat_seconds=0.2)
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        claimed(session, unit)
        overdue(session)
    sweeping = Sweeper()

    sweeping.round()
    sweeping.round()
    assert failures_of(unit) == 0

    time.sleep(2 * 0.2)
    sweeping.round()
    assert failures_of(unit) == 1


def test_a_step_that_is_late_keeps_no_lease_from_being_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        claimed(session, unit)
        overdue(session)

    def wait_too_long() -> int:
        with transaction() as session:
            session.execute(text("SET LOCAL statement_timeout = 50"))
            session.execute(text("SELECT pg_sleep(5)"))
        raise AssertionError("not reached")

    monkeypatch.setattr(sweeper, "resend", wait_too_long)
    settle(monkeypatch, heartbeat_seconds=0)
    sweeping = Sweeper()
    sweeping.round()
    sweeping.round()
    assert failures_of(unit) == 1


@pytest.mark.parametrize("frozen", ["rescue", "resend"])
def test_a_question_that_was_answered_after_a_freeze_blames_nobody(
    monkeypatch: pytest.MonkeyPatch, frozen: str
) -> None:
    settle(monkeypatch, lease_seconds=0.6, heartbeat_seconds=0.1)
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        claimed(session, unit)
    sweeping = Sweeper()
    sweeping._rescue_from = 0  # noqa: SLF001 - the grace after the start is over
    asked = getattr(work, frozen)

    def thaw_late(session: Session) -> int:
        time.sleep(0.6)  # the lease runs out before the database begins
        return int(asked(session))

    with monkeypatch.context() as patched:
        patched.setattr(work, frozen, thaw_late)
        sweeping.round()
    sweeping.round()
    assert failures_of(unit) == 0

    time.sleep(2 * 0.1)
    sweeping.round()
    assert failures_of(unit) == 1


def test_a_step_that_crashes_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        turns.pick(session, unit.queue, unit.priority, 1)
        session.execute(text("UPDATE work SET sent_at = now() - interval '1 hour'"))

    def crash() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(sweeper, "expire", crash)
    Sweeper().round()

    with transaction() as session:
        assert turns.pick(session, unit.queue, unit.priority, 1) == [unit.id]


def test_a_lease_that_was_renewed_meanwhile_is_not_ended() -> None:
    with transaction() as session:
        _, [unit] = make_prepared(session, 1, tenant=make_tenant(session))
        session.execute(text("UPDATE work SET failures = 3"))
        held = claimed(session, unit)
        overdue(session)
        [exhausted] = work.exhausted(session)
        work.renew(session, [held])

    assert not sweeper._end_if_still_overdue(exhausted)  # noqa: SLF001 - the race, step by step


def test_a_store_that_is_away_leaves_the_last_look_to_another_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deleted_job()
    Sweeper().round()
    with transaction() as session:
        session.execute(text("UPDATE tombstones SET check_at = now() - interval '1 s'"))

    def refuse(_: str) -> int:
        raise DependencyUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(storage, "delete_prefix", refuse)
        assert sweeper.check_tombstones() == 0

    assert sweeper.check_tombstones() == 1
