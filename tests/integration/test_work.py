"""The queue of record: claims, leases, fences, fairness."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared import failure, jobs, new_pages, pages, turns, work
from shared.config import settings
from shared.db import own_transactions, transaction
from shared.errors import DependencyUnavailable, EngineUnavailable, PageTimeout
from shared.models import Job
from shared.status import JobStatus, Lane, WorkKind, WorkStatus
from shared.turns import Demand
from tests.factory import (
    claimed,
    due_now,
    make_job,
    make_prepared,
    make_tenant,
    overdue,
    recognition,
    work_of,
)
from worker.tasks import prepare


def test_work_can_be_claimed_by_one_worker_only(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)

    assert work.claim(session, unit.id, "one") is not None
    assert work.claim(session, unit.id, "other") is None


def test_a_claim_planned_for_a_few_rows_finds_its_index_among_many() -> None:
    own = own_transactions()
    with own() as session:
        make_prepared(session, 3)
        session.execute(text("ANALYZE work"))  # one page of the table: reading all of it is cheaper
    for work_id in range(10):  # Postgres looks at five, and keeps the plan after that
        with own() as session:
            work.claim(session, -work_id, "worker")

    with own() as session:
        [plans] = session.execute(
            text("SELECT generic_plans FROM pg_prepared_statements WHERE name = 'octavo_claim'")
        ).one()
        explain = "EXPLAIN EXECUTE octavo_claim(1, 'worker', 1, NULL)"
        kept = "\n".join(session.scalars(text(explain)))

    assert plans
    assert "Seq Scan" not in kept
    assert "Index Scan using work_pkey" in kept


def test_a_worker_that_lost_its_page_changes_nothing(session: Session) -> None:
    job, [unit] = make_prepared(session, 1)
    late = claimed(session, unit)
    overdue(session)
    assert work.rescue(session) == 1
    current = claimed(session, unit)

    assert not pages.succeed(session, late, recognition("late"))
    assert not pages.fail(session, late, PageTimeout())
    assert not work.release(session, late)
    assert not work.retry_later(session, late)
    assert pages.succeed(session, current, recognition("current"))
    [page] = pages.finished(session, job.id)
    assert page.text == "current"


def test_the_attempt_grows_also_when_work_is_released(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    first = claimed(session, unit)
    work.release(session, first)

    assert claimed(session, unit).attempt == first.attempt + 1


def test_a_release_counts_no_failure_and_a_rescue_does(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    work.release(session, claimed(session, unit))
    assert claimed(session, unit).failures == 0

    overdue(session)
    work.rescue(session)

    assert claimed(session, unit).failures == 1


def test_renewal_answers_with_what_is_still_held(session: Session) -> None:
    job, units = make_prepared(session, 3)
    held = [claimed(session, unit) for unit in units]
    jobs_row = jobs.lock(session, job.id)
    assert jobs_row is not None
    pages.succeed(session, held[0], recognition())

    assert work.renew(session, held) == {held[1].id, held[2].id}

    jobs.cancel(session, job.tenant, job.id)
    assert work.renew(session, held) == set()


def test_rescued_work_goes_back_to_its_place_before_what_came_later(session: Session) -> None:
    _, [first, *_] = make_prepared(session, 3)
    session.execute(text("UPDATE work SET due_at = now() - interval '1 h' * (9 - page_no)"))

    for _ in range(settings().max_failures - 1):
        claimed(session, first)
        overdue(session)
        assert work.rescue(session) == 1
        assert turns.pick(session, first.queue, Lane.INTERACTIVE, 1) == [first.id]


def test_rescued_work_that_gave_way_goes_before_what_came_since_it_was_sent(
    session: Session,
) -> None:
    long, [*_, last] = make_prepared(session, 6)
    assert len(turns.pick(session, last.queue, Lane.INTERACTIVE, 6)) == 6
    claimed(session, last)
    make_prepared(session, 3, tenant=long.tenant)

    overdue(session)
    assert work.rescue(session) == 1

    assert turns.pick(session, last.queue, Lane.INTERACTIVE, 1) == [last.id]


def test_what_a_newer_version_wrote_besides_is_left_out(session: Session) -> None:
    job, [unit] = make_prepared(session, 1)
    assert pages.succeed(session, claimed(session, unit), recognition("read"))
    newer = "UPDATE recognitions SET body = jsonb_set(body::jsonb, '{blocks,0,new}', '1')::text"
    session.execute(text(newer))

    assert pages.finished(session, job.id)[0].text == "read"


def test_a_renewed_lease_is_not_rescued(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    held = claimed(session, unit)
    overdue(session)

    work.renew(session, [held])

    assert work.rescue(session) == 0


def test_a_sent_message_that_came_to_nothing_is_sent_again(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    assert turns.pick(session, unit.queue, Lane.INTERACTIVE, 10) == [unit.id]
    assert turns.pick(session, unit.queue, Lane.INTERACTIVE, 10) == []

    session.execute(text("UPDATE work SET sent_at = now() - interval '1 hour'"))
    assert work.resend(session) == 1

    assert turns.pick(session, unit.queue, Lane.INTERACTIVE, 10) == [unit.id]


def test_work_that_is_sent_again_goes_before_what_came_since_it_was_sent(session: Session) -> None:
    long, [*_, last] = make_prepared(session, 6)
    assert len(turns.pick(session, last.queue, Lane.INTERACTIVE, 6)) == 6
    make_prepared(session, 3, tenant=long.tenant)

    long_ago = "UPDATE work SET sent_at = now() - interval '1 hour' WHERE id = :id"
    session.execute(text(long_ago), {"id": last.id})
    assert work.resend(session) == 1

    assert turns.pick(session, last.queue, Lane.INTERACTIVE, 1) == [last.id]


def test_work_that_could_not_be_published_was_never_sent(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    ids = turns.pick(session, unit.queue, Lane.INTERACTIVE, 10)

    turns.unsend(session, ids)

    assert turns.pick(session, unit.queue, Lane.INTERACTIVE, 10) == ids


def test_a_loud_tenant_leaves_room_for_a_quiet_one(session: Session) -> None:
    loud, quiet = make_tenant(session), make_tenant(session)
    make_prepared(session, 50, tenant=loud)
    make_prepared(session, 4, tenant=quiet)

    ids = turns.pick(session, "recognise.fake", Lane.INTERACTIVE, 8)

    assert _tenants_of(session, ids) == {loud: 4, quiet: 4}


def test_a_tenant_with_much_in_flight_waits_for_one_with_nothing(session: Session) -> None:
    loud, quiet = make_tenant(session), make_tenant(session)
    make_prepared(session, 20, tenant=loud)
    turns.pick(session, "recognise.fake", Lane.INTERACTIVE, 10)
    make_prepared(session, 5, tenant=quiet)

    ids = turns.pick(session, "recognise.fake", Lane.INTERACTIVE, 5)

    assert _tenants_of(session, ids) == {quiet: 5}


def test_a_tenant_has_no_more_at_once_than_it_may(session: Session) -> None:
    tenant = make_tenant(session)
    session.execute(text("UPDATE tenants SET max_busy = 3"))
    make_prepared(session, 10, tenant=tenant)

    assert len(turns.pick(session, "recognise.fake", Lane.INTERACTIVE, 10)) == 3
    assert turns.pick(session, "recognise.fake", Lane.INTERACTIVE, 10) == []


def test_demand_tells_each_lane_of_each_queue(session: Session) -> None:
    make_prepared(session, 1, priority=Lane.BATCH)
    _, [sent, held, ended, *_] = make_prepared(session, 4)
    turns.pick(session, sent.queue, Lane.INTERACTIVE, 1)
    claimed(session, held)
    assert work.end(session, claimed(session, ended), WorkStatus.SUCCEEDED)

    found = turns.demand(session, ["prepare", "recognise.fake"])

    nothing = Demand(is_due=False, busy=0)
    assert found == {
        "prepare": {Lane.INTERACTIVE: nothing, Lane.BATCH: nothing},
        "recognise.fake": {
            Lane.INTERACTIVE: Demand(is_due=True, busy=2),
            Lane.BATCH: Demand(is_due=True, busy=0),
        },
    }


def test_demand_counts_no_work_that_is_not_due_yet(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    work.release(session, claimed(session, unit), delay_seconds=60)

    [found] = turns.demand(session, [unit.queue]).values()

    assert found[Lane.INTERACTIVE] == Demand(is_due=False, busy=0)


def test_an_error_that_may_pass_is_tried_again_until_there_is_enough(session: Session) -> None:
    job, [unit] = make_prepared(session, 1)
    for _ in range(3):
        failure.settle(session, claimed(session, unit), EngineUnavailable())
        due_now(session)
        assert work_of(session, job, WorkKind.RECOGNISE)[0].status is WorkStatus.QUEUED

    failure.settle(session, claimed(session, unit), EngineUnavailable())

    [page] = pages.finished(session, job.id)
    assert page.error is not None
    assert page.error.code == "page_crashed_engine"


def test_what_is_nobodys_fault_may_happen_for_ever(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    for _ in range(10):
        failure.settle(session, claimed(session, unit), DependencyUnavailable())
        due_now(session)

    assert claimed(session, unit).failures == 0


def test_a_page_that_ends_its_worker_again_and_again_ends_itself(session: Session) -> None:
    _, [unit] = make_prepared(session, 1)
    for _ in range(3):
        claimed(session, unit)
        overdue(session)
        assert work.rescue(session) == 1
        due_now(session)
    held = claimed(session, unit)
    overdue(session)

    assert work.rescue(session) == 0
    assert work.exhausted(session) == [held]


def test_the_last_page_and_only_the_last_queues_the_assembling(session: Session) -> None:
    job, units = make_prepared(session, 2)
    pages.succeed(session, claimed(session, units[0]), recognition())
    assert work_of(session, job, WorkKind.ASSEMBLE) == []

    pages.fail(session, claimed(session, units[1]), PageTimeout())

    assert len(work_of(session, job, WorkKind.ASSEMBLE)) == 1


def test_pages_that_end_at_the_same_moment_are_all_counted_and_one_is_the_last() -> None:
    with transaction() as session:
        job, units = make_prepared(session, 64)
        held = [claimed(session, unit) for unit in units]

    def end(claim: work.Claim) -> bool:
        with transaction() as session:
            if claim.page_no % 4:
                return pages.succeed(session, claim, recognition())
            return pages.fail(session, claim, PageTimeout())

    with ThreadPoolExecutor(8) as workers:
        assert all(workers.map(end, held))

    with transaction() as session:
        row = session.get_one(Job, job.id)
        assert (row.pages_succeeded, row.pages_failed) == (48, 16)
        assert len(work_of(session, job, WorkKind.ASSEMBLE)) == 1


def test_cancelling_ends_queued_and_running_work(session: Session) -> None:
    job, units = make_prepared(session, 3)
    held = claimed(session, units[0])

    _, now = jobs.cancel(session, job.tenant, job.id)

    assert now
    assert {unit.status for unit in work_of(session, job, WorkKind.RECOGNISE)} == {
        WorkStatus.CANCELLED
    }
    assert not pages.succeed(session, held, recognition())
    assert jobs.get(session, job.tenant, job.id).status is JobStatus.CANCELLED


@pytest.mark.parametrize("status", ["queued", "running"])
def test_the_database_refuses_to_revive_what_is_final(status: str) -> None:
    with transaction() as session:
        job, [unit] = make_prepared(session, 1)
        pages.succeed(session, claimed(session, unit), recognition())
        jobs.fail(
            session, claimed(session, work_of(session, job, WorkKind.ASSEMBLE)[0]), PageTimeout()
        )

    for table in ("work", "jobs"):
        with pytest.raises(IntegrityError, match="is final"), transaction() as session:
            session.execute(text(f"UPDATE {table} SET status = :status"), {"status": status})  # noqa: S608


def test_preparing_twice_makes_each_page_once(session: Session) -> None:
    job = make_job(session)
    [unit] = work_of(session, job, WorkKind.PREPARE)
    first = claimed(session, unit)
    new_pages.begin(session, first, job, 2)
    new_pages.add(session, first, [new_pages.Rendered(1, "first", 1, 1)])
    overdue(session)
    work.rescue(session)
    second = claimed(session, unit)

    assert not new_pages.add(session, first, [new_pages.Rendered(2, "first", 1, 1)])
    assert new_pages.add(session, second, [new_pages.Rendered(n, "second", 1, 1) for n in (1, 2)])

    keys = session.execute(text("SELECT page_no, image_key FROM pages ORDER BY 1")).all()
    assert keys == [(1, "first"), (2, "second")]


def test_whoever_lost_prepare_neither_begins_nor_adds_nor_ends(session: Session) -> None:
    job = make_job(session)
    [unit] = work_of(session, job, WorkKind.PREPARE)
    late = claimed(session, unit)
    overdue(session)
    work.rescue(session)
    current = claimed(session, unit)

    assert new_pages.begin(session, late, job, 2) is None
    failed = new_pages.Rendered(1, error=PageTimeout())
    assert not new_pages.add(session, late, [failed], ends_as=WorkStatus.SUCCEEDED)

    session.refresh(job)
    assert (job.status, job.pages_total, job.pages_failed) == (JobStatus.QUEUED, None, 0)
    assert work_of(session, job, WorkKind.PREPARE)[0].status is WorkStatus.RUNNING
    assert work_of(session, job, WorkKind.RECOGNISE) == []
    assert new_pages.begin(session, current, job, 2) == new_pages.Begun([1, 2], 0)


def test_prepare_goes_on_behind_what_an_earlier_attempt_added(session: Session) -> None:
    job = make_job(session, options={"pages": "2-9"})
    [unit] = work_of(session, job, WorkKind.PREPARE)
    first = claimed(session, unit)
    new_pages.begin(session, first, job, 5)
    new_pages.add(session, first, [new_pages.Rendered(n, "key", 1, 1) for n in (2, 3)])
    pages.succeed(
        session, claimed(session, work_of(session, job, WorkKind.RECOGNISE)[0]), recognition()
    )
    work.release(session, first)

    begun = new_pages.begin(session, claimed(session, unit), job, 5)

    assert begun == new_pages.Begun([4, 5], unread=1, read=1)
    session.refresh(job)
    assert (job.pages_total, job.source_pages, len(job.warnings)) == (4, 5, 1)


def failed_before(session: Session, job: Job) -> work.Claim:
    """A claim of the work to prepare a job, which failed three times."""
    [unit] = work_of(session, job, WorkKind.PREPARE)
    session.execute(text("UPDATE work SET failures = 3 WHERE id = :id"), {"id": unit.id})
    return claimed(session, unit)


def test_pages_that_are_added_make_good_earlier_failures_of_prepare(session: Session) -> None:
    job = make_job(session)
    held = failed_before(session, job)
    new_pages.begin(session, held, job, 3)

    assert new_pages.add(session, held, [new_pages.Rendered(1, "key", 1, 1)])

    assert work_of(session, job, WorkKind.PREPARE)[0].failures == 0


def test_pages_that_were_there_before_make_no_failure_good(session: Session) -> None:
    job = make_job(session)
    [unit] = work_of(session, job, WorkKind.PREPARE)
    first = claimed(session, unit)
    new_pages.begin(session, first, job, 3)
    new_pages.add(session, first, [new_pages.Rendered(1, "key", 1, 1)])
    work.release(session, first)
    held = failed_before(session, job)

    assert new_pages.add(session, held, [new_pages.Rendered(1, "key", 1, 1)])
    assert new_pages.add(session, held, [])

    assert work_of(session, job, WorkKind.PREPARE)[0].failures == 3


def test_whoever_lost_prepare_makes_no_failure_good(session: Session) -> None:
    job = make_job(session)
    [unit] = work_of(session, job, WorkKind.PREPARE)
    late = claimed(session, unit)
    new_pages.begin(session, late, job, 3)
    work.release(session, late)
    failed_before(session, job)

    assert not new_pages.add(session, late, [new_pages.Rendered(1, "key", 1, 1)])

    assert work_of(session, job, WorkKind.PREPARE)[0].failures == 3


def test_pages_are_added_beside_a_lease_that_is_renewed_meanwhile() -> None:
    with transaction() as session:
        job = make_job(session)
        held = failed_before(session, job)
        new_pages.begin(session, held, job, 3)

    def add() -> bool:
        with transaction(alone=True) as session:
            return new_pages.add(session, held, [new_pages.Rendered(1, "key", 1, 1)])

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            jobs.lock(session, job.id)
            added = other.submit(add)
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while not (session.scalars(waiting).one() or added.done()):
                time.sleep(0.01)
            overdue(session)
            assert work.renew(session, [held]) == {held.id}
        assert added.result()

    with transaction() as session:
        [unit] = work_of(session, job, WorkKind.PREPARE)
        assert unit.failures == 0
        assert work.rescue(session) == 0


def test_prepare_hears_how_long_its_job_has_run(session: Session) -> None:
    job = make_job(session)
    held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
    new_pages.begin(session, held, job, 2)
    session.execute(text("UPDATE jobs SET started_at = now() - interval '90 s'"))

    begun = new_pages.begin(session, held, job, 2)

    assert begun == new_pages.Begun([1, 2], unread=0, read=0, seconds=90)


@pytest.mark.parametrize(
    ("read", "seconds", "rests"),
    [
        (0, 0, 0.25),  # nothing is known of the pace
        (0, 3, 3),
        (0, 600, 10),
        (17, 10, 8 / 1.7),  # until an eighth of 64 pages is read
        (300, 3, 0.25),
        (1, 60, 10),
    ],
)
def test_prepare_rests_while_its_readers_read_a_share_of_what_is_ahead(
    read: int, seconds: float, rests: float
) -> None:
    begun = new_pages.Begun([65], unread=64, read=read, seconds=seconds)

    assert prepare.rest_seconds(begun) == pytest.approx(rests)


def test_prepare_ends_with_its_last_pages(session: Session) -> None:
    job = make_job(session)
    held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
    new_pages.begin(session, held, job, 2)

    assert new_pages.add(session, held, [new_pages.Rendered(1, "key", 1, 1)])
    assert work_of(session, job, WorkKind.PREPARE)[0].status is WorkStatus.RUNNING
    assert new_pages.add(
        session, held, [new_pages.Rendered(2, "key", 1, 1)], ends_as=WorkStatus.SUCCEEDED
    )

    assert work_of(session, job, WorkKind.PREPARE)[0].status is WorkStatus.SUCCEEDED
    assert len(work_of(session, job, WorkKind.RECOGNISE)) == 2
    assert not new_pages.add(session, held, [new_pages.Rendered(1, "key", 1, 1)])


def test_a_job_none_of_whose_pages_can_be_rendered_is_assembled_once(session: Session) -> None:
    job = make_job(session)
    held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
    new_pages.begin(session, held, job, 3)
    first, *others = [new_pages.Rendered(number, error=PageTimeout()) for number in (1, 2, 3)]

    assert new_pages.add(session, held, [first])
    assert work_of(session, job, WorkKind.ASSEMBLE) == []
    for _ in range(2):
        assert new_pages.add(session, held, others)
    assert new_pages.add(session, held, [], ends_as=WorkStatus.SUCCEEDED)

    session.refresh(job)
    assert job.pages_failed == 3
    assert len(work_of(session, job, WorkKind.ASSEMBLE)) == 1
    assert {unit.status for unit in work_of(session, job, WorkKind.RECOGNISE)} == {
        WorkStatus.FAILED
    }


def test_pages_that_fail_in_prepare_while_others_are_read_are_all_counted() -> None:
    with transaction() as session:
        job = make_job(session)
        prepare = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
        new_pages.begin(session, prepare, job, 64)
        good = [new_pages.Rendered(number, "key", 1, 1) for number in range(1, 33)]
        new_pages.add(session, prepare, good)
        units = work_of(session, job, WorkKind.RECOGNISE)
        held = [claimed(session, unit) for unit in units]

    def end(claim: work.Claim) -> bool:
        with transaction(alone=True) as session:
            return pages.succeed(session, claim, recognition())

    def fail(page_no: int) -> bool:
        failed = [new_pages.Rendered(page_no, error=PageTimeout())]
        with transaction(alone=True) as session:
            return new_pages.add(session, prepare, failed)

    with ThreadPoolExecutor(8) as workers:
        ended, failed = workers.map(end, held), workers.map(fail, range(33, 65))
        assert all(ended)
        assert all(failed)

    with transaction() as session:
        row = session.get_one(Job, job.id)
        assert (row.pages_succeeded, row.pages_failed) == (32, 32)
        assert len(work_of(session, job, WorkKind.ASSEMBLE)) == 1


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (WorkKind.PREPARE, lambda session, held, job: new_pages.begin(session, held, job, 1)),
        (WorkKind.PREPARE, lambda session, held, _: new_pages.add(session, held, [])),
        (WorkKind.RECOGNISE, lambda session, held, _: pages.succeed(session, held, recognition())),
        (
            WorkKind.ASSEMBLE,
            lambda session, held, _: jobs.finish(session, held, JobStatus.SUCCEEDED),
        ),
    ],
    ids=["begin", "add", "succeed", "finish"],
)
def test_whoever_waits_for_a_jobs_row_has_locked_none_of_its_work(
    kind: WorkKind, step: Callable[[Session, work.Claim, Job], object]
) -> None:
    with transaction() as session:
        job = make_job(session) if kind is WorkKind.PREPARE else make_prepared(session, 1)[0]
        if kind is WorkKind.ASSEMBLE:
            [unit] = work_of(session, job, WorkKind.RECOGNISE)
            pages.succeed(session, claimed(session, unit), recognition())
        held = claimed(session, work_of(session, job, kind)[0])

    def take() -> object:
        with transaction(alone=True) as session:
            return step(session, held, job)

    with ThreadPoolExecutor(1) as other:
        with transaction() as session:
            jobs.lock(session, job.id)
            taken = other.submit(take)
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while not (session.scalars(waiting).one() or taken.done()):
                time.sleep(0.01)
            assert not taken.done()
            lock = text("SELECT FROM work WHERE id = :id FOR UPDATE NOWAIT")
            assert session.execute(lock, {"id": held.id}).all()
        assert taken.result()


def test_whoever_lost_assemble_does_not_end_the_job(session: Session) -> None:
    job, [unit] = make_prepared(session, 1)
    pages.succeed(session, claimed(session, unit), recognition())
    [last] = work_of(session, job, WorkKind.ASSEMBLE)
    late = claimed(session, last)
    work.release(session, late)
    current = claimed(session, last)

    assert not jobs.finish(session, late, JobStatus.SUCCEEDED)
    session.refresh(job)
    assert job.status is JobStatus.RUNNING

    assert jobs.finish(session, current, JobStatus.SUCCEEDED)
    session.refresh(job)
    assert (job.status, job.result_attempt) == (JobStatus.SUCCEEDED, current.attempt)
    assert job.expires_at is not None


def test_pages_that_cannot_be_rendered_count_as_failed(session: Session) -> None:
    job = make_job(session)
    held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
    new_pages.begin(session, held, job, 1)

    new_pages.add(session, held, [new_pages.Rendered(1, error=PageTimeout())])

    row = session.get(Job, job.id, populate_existing=True)
    assert row is not None
    assert (row.pages_total, row.pages_failed) == (1, 1)
    assert len(work_of(session, job, WorkKind.ASSEMBLE)) == 1


def test_prepare_that_gives_up_half_way_keeps_the_good_pages(session: Session) -> None:
    job = make_job(session)
    held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
    new_pages.begin(session, held, job, 3)
    new_pages.add(session, held, [new_pages.Rendered(1, "key", 1, 1)])

    assert new_pages.give_up(session, held, PageTimeout())
    [unit, *_] = work_of(session, job, WorkKind.RECOGNISE)
    pages.succeed(session, claimed(session, unit), recognition())

    found = pages.finished(session, job.id)
    assert [page.status for page in found] == ["succeeded", "failed", "failed"]
    assert len(work_of(session, job, WorkKind.ASSEMBLE)) == 1


def _tenants_of(session: Session, ids: list[int]) -> dict[UUID, int]:
    query = text("SELECT tenant, count(*) AS units FROM work WHERE id = ANY(:ids) GROUP BY tenant")
    return {row.tenant: row.units for row in session.execute(query, {"ids": ids})}
