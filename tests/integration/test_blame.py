"""Who is to blame for an engine's death: the page that did it, and nobody else."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import failure, pages, turns, work
from shared.config import settings
from shared.db import transaction
from shared.errors import DependencyUnavailable, EngineDied
from shared.models import Job, Work
from shared.options import Task
from shared.status import Lane, WorkKind
from tests.factory import claimed, due_now, make_prepared, make_readable, unread, work_of
from tests.faults import fake_settings, page_image, running
from worker import process
from worker.engine.faults import Fault
from worker.engine.host import EngineHost
from worker.heartbeat import Heartbeat
from worker.tasks.recognise import recognise

QUEUE = "recognise.fake"


def dies(session: Session, unit: Work, *, suspects: int, suspect: bool = True) -> work.Claim:
    """Read a page whose engine then dies; the claim of its next attempt."""
    death = EngineDied(suspect=suspect, suspects=suspects)
    assert failure.settle(session, claimed(session, unit), death)
    due_now(session)
    return claimed(session, unit)


def released(session: Session, held: work.Claim) -> None:
    work.release(session, held)


def test_a_suspect_is_read_among_eight_and_then_alone_and_is_not_blamed_yet(
    session: Session,
) -> None:
    _, [unit] = make_prepared(session, 1)

    among_eight = dies(session, unit, suspects=200)
    released(session, among_eight)
    alone = dies(session, unit, suspects=8)

    assert (among_eight.among, among_eight.failures) == (8, 0)
    assert (alone.among, alone.failures) == (1, 0)


def test_a_page_that_kills_its_engine_twice_while_alone_ends(session: Session) -> None:
    job, [unit] = make_prepared(session, 1)

    again = dies(session, unit, suspects=1)
    assert (again.among, again.failures) == (1, 2)
    failure.settle(session, again, EngineDied(suspect=True, suspects=1))

    [page] = pages.finished(session, job.id)
    assert page.error is not None
    assert page.error.code == "page_crashed_engine"


def test_a_neighbours_crash_counts_nothing_and_casts_no_suspicion(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    for _ in range(10):
        held = dies(session, unit, suspects=3, suspect=False)
        assert (held.among, held.failures) == (None, 0)
        released(session, held)


def test_a_suspect_stays_one_when_something_else_gives_it_back(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    released(session, dies(session, unit, suspects=2))

    assert claimed(session, unit).among == 1


@contextmanager
def equipped(host: EngineHost) -> Iterator[Heartbeat]:
    """This process as a worker with that engine."""
    heartbeat = Heartbeat([QUEUE], host.slots, {})
    process.equip(heartbeat=heartbeat, engine=host)
    heartbeat.start()
    try:
        yield heartbeat
    finally:
        heartbeat.stop()


def read_all(job: Job, threads: int) -> None:
    """Read a job's pages as the dispatcher and a worker do, until all are final."""
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(1000):
            with suppress(DependencyUnavailable):  # of 200 threads, 16 have a connection
                for work_id in picked(threads):
                    pool.submit(recognise, work_id)
                with transaction() as session:
                    if not unread(session, job):
                        return
            time.sleep(0.05)
    pytest.fail("it does not end")


def picked(most: int) -> list[int]:
    with transaction() as session:
        work.resend(session)
        return turns.pick(session, QUEUE, Lane.INTERACTIVE, most)


def units(job: Job) -> list[Any]:
    query = text(
        "SELECT page_no, status, failures, error ->> 'code' AS code FROM work "
        "WHERE job_id = :id AND kind = 'recognise' ORDER BY page_no"
    )
    with transaction() as session:
        return list(session.execute(query, {"id": job.id}))


def test_a_killer_among_200_pages_costs_itself_and_five_deaths_at_most(tmp_path: Path) -> None:
    images = [page_image(text=str(number), size=(160, 120)) for number in range(199)]
    images.insert(77, page_image(Fault.POISON, size=(160, 120)))
    job = make_readable(images)

    with (
        fake_settings(tmp_path, faults="poison", slots=200, delay_seconds=0.4),
        running(max_recognition_bytes=settings().max_recognition_bytes) as host,
        equipped(host),
    ):
        read_all(job, threads=200)
        deaths = host.vitals.deaths

    read = units(job)
    assert [unit.page_no for unit in read if unit.status != "succeeded"] == [78]
    assert read[77].code == "page_crashed_engine"
    assert {unit.failures for unit in read if unit.page_no != 78} == {0}
    assert 2 <= deaths <= 5


def test_while_the_engine_starts_again_nothing_is_claimed() -> None:
    job = make_readable([page_image()])
    with fake_settings(), running() as host, equipped(host):
        host.vitals.serving.clear()  # as it is between two lives

        with ThreadPoolExecutor(1) as pool:
            task = pool.submit(recognise, only_unit(job))
            time.sleep(0.7)
            assert units(job)[0].status == "queued"
            host.vitals.serving.set()
            task.result(10)

    assert units(job)[0].status == "succeeded"


def test_a_worker_that_ends_gives_back_the_message_that_waits_for_its_engine() -> None:
    job = make_readable([page_image()])
    with transaction() as session:
        assert turns.pick(session, QUEUE, Lane.INTERACTIVE, 1) == [only_unit(job)]
    with fake_settings(), running() as host, equipped(host) as heartbeat:
        host.vitals.serving.clear()
        heartbeat.draining = True

        recognise(only_unit(job))

    with transaction() as session:
        assert turns.pick(session, QUEUE, Lane.INTERACTIVE, 1) == [only_unit(job)]


def only_unit(job: Job) -> int:
    with transaction() as session:
        return work_of(session, job, WorkKind.RECOGNISE)[0].id


def test_an_engine_may_take_longer_to_start_than_a_page_may_stand_still() -> None:
    job = make_readable([page_image()])
    with fake_settings(slots=1, faults="slow"), running() as host, equipped(host) as heartbeat:
        host.submit(page_image(Fault.SLOW), task=Task.TEXT)
        waiting = host.submit(page_image(), task=Task.TEXT)
        host.vitals.serving.clear()
        with transaction() as session:
            claim = work.claim(session, only_unit(job), heartbeat.worker_id)
        assert claim is not None
        with heartbeat.holding(claim) as held:
            held.progressed = waiting.progressed
            for _ in range(3):
                held._moved_at -= 3600  # noqa: SLF001 - as if an hour had passed
                assert held.goes_on()
