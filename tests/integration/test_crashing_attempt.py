"""An attempt at some work that crashes: it counts, and work that always crashes ends."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import text

from shared import pages, work
from shared.db import transaction
from shared.models import Job, Work
from shared.status import JobStatus, WorkKind
from tests.factory import due_now, make_job, make_prepared, overdue, work_of
from worker import process, sweeper
from worker.heartbeat import Heartbeat, Held
from worker.tasks.attempt import carry_out


@pytest.fixture(autouse=True)
def _worker() -> Iterator[None]:
    heartbeat = Heartbeat(["prepare", "recognise.fake"], 1, {})
    process.equip(heartbeat=heartbeat, engine=None)
    heartbeat.start()
    yield
    heartbeat.stop()


def crash(*_: object) -> None:
    raise ZeroDivisionError("division by zero")


def crash_in_the_database(_: object) -> None:
    with transaction() as session:
        session.execute(text("SELECT 1 / 0"))


def crashes(unit: Work, do: Callable[[Held], None]) -> None:
    """Let an attempt at `unit` crash, and its lease run out."""
    with pytest.raises(Exception, match="zero"):
        carry_out(unit.id, do)
    with transaction() as session:
        overdue(session)
        work.rescue(session)
        due_now(session)
    sweeper.end_exhausted()


@pytest.mark.parametrize("do", [crash, crash_in_the_database])
def test_a_page_whose_reading_always_crashes_fails_in_the_end(do: Callable[[Held], None]) -> None:
    with transaction() as session:
        job, [unit] = make_prepared(session, 1)

    for _ in range(4):
        crashes(unit, do)

    with transaction() as session:
        [page] = pages.finished(session, job.id)
    assert page.error is not None
    assert page.error.code == "page_crashed_engine"


def test_a_job_whose_preparing_always_crashes_fails_in_the_end() -> None:
    with transaction() as session:
        job = make_job(session)
        [unit] = work_of(session, job, WorkKind.PREPARE)

    for _ in range(4):
        crashes(unit, crash)

    with transaction() as session:
        row = session.get_one(Job, job.id)
    assert row.status is JobStatus.FAILED
    assert row.error is not None
    assert row.error["code"] == "poison_document"
