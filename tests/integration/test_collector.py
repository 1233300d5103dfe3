"""The collector: what belongs to nothing goes once it is old, and nothing else ever does."""

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from shared import jobs, new_pages, pages, storage, work
from shared.advisory import AdvisoryLock
from shared.db import sole_holder, transaction
from shared.models import Job
from shared.status import JobStatus, WorkKind, WorkStatus
from shared.storage import figure_key, page_key, result_key, source_key
from tests.factory import claimed, make_job, make_tenant, recognition, work_of
from tests.unit.test_engine_host import wait_until
from worker import collector


@pytest.fixture(autouse=True)
def _empty_store() -> Iterator[None]:
    storage.delete_prefix("")
    yield
    storage.delete_prefix("")


def collected(*, hours_from_now: float) -> int:
    """How many a collection finds that takes place then, an hour being the age of orphans."""
    before = datetime.now(UTC) + timedelta(hours=hours_from_now - 1)
    return sum(collector.collect(before=before))


def stored(*keys: str) -> None:
    for key in keys:
        storage.put(key, b"bytes")


def in_store() -> set[str]:
    return {found.key for objects in storage.listing() for found in objects}


def tenant() -> UUID:
    with transaction() as session:
        return make_tenant(session)


def finished_job() -> Job:
    """A job of one page, with all its objects and those of attempts that came to nothing."""
    with transaction() as session:
        job = make_job(session)
        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
        work.release(session, held)
        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
        new_pages.begin(session, held, job, 1)
        key = page_key(job.tenant, job.id, 1, held.attempt)
        new_pages.add(session, held, [new_pages.Rendered(1, key, 1, 1)])
        work.end(session, held, WorkStatus.SUCCEEDED)
        pages.succeed(
            session, claimed(session, work_of(session, job, WorkKind.RECOGNISE)[0]), recognition()
        )
        [last] = work_of(session, job, WorkKind.ASSEMBLE)
        work.release(session, claimed(session, last))
        jobs.finish(session, claimed(session, last), JobStatus.SUCCEEDED)
    return job


def test_an_object_without_a_job_goes_once_it_is_old() -> None:
    stored(source_key(tenant(), uuid4()))

    assert collected(hours_from_now=0.5) == 0
    assert in_store()

    assert collected(hours_from_now=1.5) == 1
    assert not in_store()


def test_what_a_job_needs_stays_and_what_lost_attempts_left_goes() -> None:
    job = finished_job()
    needed = {
        source_key(job.tenant, job.id),
        page_key(job.tenant, job.id, 1, 2),
        figure_key(job.tenant, job.id, 1, 1, 1),
        result_key(job.tenant, job.id, 2, "md"),
        storage.job_prefix(job.tenant, job.id) + "pages/1/overlay.png",  # of a later version
    }
    lost = {
        page_key(job.tenant, job.id, 1, 1),
        page_key(job.tenant, job.id, 2, 2),
        figure_key(job.tenant, job.id, 1, 2, 1),
        figure_key(job.tenant, job.id, 2, 1, 1),
        result_key(job.tenant, job.id, 1, "md"),
    }
    stored(*needed, *lost)

    assert collected(hours_from_now=2) == len(lost)
    assert in_store() == needed


def test_what_a_late_worker_wrote_after_a_job_expired_goes() -> None:
    job = finished_job()
    with transaction() as session:
        jobs.expire(session, job.id)
    stored(source_key(job.tenant, job.id), page_key(job.tenant, job.id, 1, 2))

    assert collected(hours_from_now=2) == 2


def test_what_a_late_worker_wrote_after_a_job_was_purged_goes() -> None:
    job = finished_job()
    with transaction() as session:
        jobs.delete(session, job.tenant, job.id)
    stored(page_key(job.tenant, job.id, 1, 2))
    assert collected(hours_from_now=2) == 0  # the purge's

    with transaction() as session:
        jobs.purge(session, job.id, objects=0)

    assert collected(hours_from_now=2) == 1


def test_what_lies_below_anothers_tenant_does_not_belong_to_the_job() -> None:
    job = finished_job()
    stored(source_key(tenant(), job.id))

    assert collected(hours_from_now=2) == 1


def test_a_database_that_does_not_know_the_tenant_takes_nothing() -> None:
    stored(source_key(uuid4(), uuid4()), "probe", "backups/of/somebody")

    assert collected(hours_from_now=24 * 365) == 0
    assert len(in_store()) == 3


def test_the_parts_of_an_upload_that_was_never_finished_go_once_they_are_old() -> None:
    writer = storage.Writer(source_key(tenant(), uuid4()))
    writer.part(bytes(storage.PART_BYTES))
    finished = storage.Writer(source_key(tenant(), uuid4()))
    finished.part(bytes(storage.PART_BYTES))
    finished.close(b"", "application/pdf")

    assert collected(hours_from_now=0.5) == 0
    assert len(list(storage.unfinished_uploads())) == 1

    assert collected(hours_from_now=2) == 2  # and the object that the other one has become
    assert list(storage.unfinished_uploads()) == []
    writer.abort()  # by a gateway that wakes, which is not told


def test_a_thousand_objects_are_one_piece_of_work(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = tenant()
    stored(*[source_key(owner, uuid4()) for _ in range(7)])
    monkeypatch.setattr(storage, "LISTED", 3)

    pieces = collector.collect(before=datetime.now(UTC) + timedelta(hours=1))

    assert next(pieces) == 3
    assert len(in_store()) == 4
    assert list(pieces) == [3, 1, 0]


def test_one_collector_works_and_another_stands_by(monkeypatch: pytest.MonkeyPatch) -> None:
    stored(source_key(tenant(), uuid4()))
    monkeypatch.setattr(collector, "_now", lambda: datetime.now(UTC) + timedelta(days=2))
    stop = threading.Event()
    other = threading.Thread(target=collector.run, args=(stop,))

    with sole_holder(AdvisoryLock.COLLECTION, stop):
        other.start()
        time.sleep(1)
        assert in_store()

    wait_until(lambda: not in_store())
    stop.set()
    other.join()
