"""The sweeper: each step is safe to do twice, and none stops the others."""

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import jobs, storage, work
from shared.db import transaction
from shared.errors import DependencyUnavailable
from shared.models import Job, Tombstone
from shared.status import JobStatus, WorkKind
from tests.factory import claimed, make_job, make_prepared, make_tenant, overdue, work_of
from worker import sweeper
from worker.sweeper import Sweeper


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
    with transaction() as session:
        assert (
            session.execute(
                text("SELECT failures FROM work WHERE id = :id"), {"id": unit.id}
            ).scalar()
            == 1
        )


def test_a_step_that_crashes_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        work.pick(session, unit.queue, unit.priority, 1)
        session.execute(text("UPDATE work SET sent_at = now() - interval '1 hour'"))

    def crash() -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(sweeper, "expire", crash)
    Sweeper().round()

    with transaction() as session:
        assert work.pick(session, unit.queue, unit.priority, 1) == [unit.id]


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
