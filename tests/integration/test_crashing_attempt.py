"""An attempt at some work that crashes: it counts, and work that always crashes ends."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import pytest
from sqlalchemy import text

from shared import pages, work
from shared.db import transaction
from shared.errors import InternalError
from shared.models import Job, Work
from shared.status import JobStatus, WorkKind, WorkStatus
from tests.factory import due_now, make_job, make_prepared, overdue, work_of
from worker import process, sweeper
from worker.heartbeat import Heartbeat, Held
from worker.pipeline.render import PageImage
from worker.tasks import prepare
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


class Brittle:
    """A document of ten pages, some of which so often end the attempt that renders them."""

    pages_total = 10

    def __init__(self, ends_by: Exception, times: dict[int, int]) -> None:
        self._ends_by, self._times = ends_by, Counter(times)

    def render(self, index: int) -> PageImage:
        page_no = index + 1
        if self._times[page_no]:
            self._times[page_no] -= 1
            raise self._ends_by
        return PageImage(b"", 1, 1)


def prepared(monkeypatch: pytest.MonkeyPatch, document: Brittle) -> Work:
    """The work to prepare a document, carried out again and again until it is over."""
    monkeypatch.setattr(prepare, "_download", lambda *_: None)
    monkeypatch.setattr(prepare, "_open", lambda *_: nullcontext(document))
    with transaction() as session:
        job = make_job(session)
        [unit] = work_of(session, job, WorkKind.PREPARE)
    while not unit.status.is_final:
        with suppress(ZeroDivisionError):
            prepare.prepare(unit.id)
        with transaction() as session:
            overdue(session)
            work.rescue(session)
            due_now(session)
        sweeper.end_exhausted()
        with transaction() as session:
            [unit] = work_of(session, job, WorkKind.PREPARE)
    return unit


ENDS = [ZeroDivisionError(), InternalError()]


@pytest.mark.parametrize("ends_by", ENDS, ids=["crash", "error"])
def test_preparing_that_fails_often_but_adds_pages_between_goes_on(
    monkeypatch: pytest.MonkeyPatch, ends_by: Exception
) -> None:
    # Three attempts add nothing. The fourth adds page 1, each later one the page that ended the last.
    document = Brittle(ends_by, {1: 3, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1})

    unit = prepared(monkeypatch, document)

    assert (unit.status, unit.attempt) == (WorkStatus.SUCCEEDED, 9)
    with transaction() as session:
        units = work_of(session, session.get_one(Job, unit.job_id), WorkKind.RECOGNISE)
    assert [(each.page_no, each.status) for each in units] == [
        (page_no, WorkStatus.QUEUED) for page_no in range(1, 11)
    ]


@pytest.mark.parametrize("ends_by", ENDS, ids=["crash", "error"])
def test_a_page_that_always_ends_its_preparing_ends_it_after_four_without_progress(
    monkeypatch: pytest.MonkeyPatch, ends_by: Exception
) -> None:
    unit = prepared(monkeypatch, Brittle(ends_by, {5: 99}))

    # The first two attempts add pages 1 to 3 and page 4. What follows adds none.
    assert (unit.status, unit.attempt) == (WorkStatus.FAILED, 5)
    assert unit.error is not None
    assert unit.error["code"] == "poison_document"
    with transaction() as session:
        units = work_of(session, session.get_one(Job, unit.job_id), WorkKind.RECOGNISE)
    assert [each.status for each in units] == [WorkStatus.QUEUED] * 4 + [WorkStatus.FAILED] * 6
