"""The invariants of a campaign go red: each is broken on purpose, and only that one is reported."""

from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from benchmarks.chaos import invariants
from benchmarks.chaos.invariants import INVARIANTS, ONE_JOB_A_KEY, Harm
from benchmarks.chaos.objects import compare
from shared import jobs, ladder, pages, storage
from shared.document import FinishReason, Flaw, Usage
from shared.errors import PageUnreadable
from shared.models import Job, Work
from shared.options import Task
from shared.status import JobStatus, WorkKind
from tests.factory import claimed, make_prepared, make_tenant, recognition, work_of

OUTPUT_TOKENS = 3
USAGE = Usage(vision_tokens=256, output_tokens=OUTPUT_TOKENS)


def make_read(session: Session, page_count: int = 3) -> Job:
    """A job that was read and assembled."""
    job, units = make_prepared(session, page_count)
    for unit in units:
        assert pages.succeed(session, claimed(session, unit), recognition(usage=USAGE))
    [assemble] = work_of(session, job, WorkKind.ASSEMBLE)
    assert jobs.finish(session, claimed(session, assemble), JobStatus.SUCCEEDED)
    session.flush()
    return job


def broken(session: Session, job: Job) -> set[str]:
    found = invariants.breaches(session.connection(), [job.id])
    return {breach.says for breach in found}


def test_nothing_is_reported_of_jobs_that_ended_right(session: Session) -> None:
    job = make_read(session)
    cancelled, _ = make_prepared(session, 2, tenant=job.tenant)
    jobs.cancel(session, job.tenant, cancelled.id)
    failed, [page] = make_prepared(session, 1, tenant=job.tenant)
    assert pages.fail(session, claimed(session, page), PageUnreadable())
    [assemble] = work_of(session, failed, WorkKind.ASSEMBLE)
    assert jobs.fail(session, claimed(session, assemble), PageUnreadable())
    session.flush()

    assert broken(session, job) == set()


def climb(session: Session, unit: Work) -> None:
    """Read a page with a flaw, so that it is to be read again."""
    held = claimed(session, unit)
    cut = recognition("cut o", mode="base", finish_reason=FinishReason.LENGTH, usage=USAGE)
    outcome = ladder.outcome(None, cut, flaw=Flaw.LENGTH, task=Task.MARKDOWN, others=())
    assert outcome.next_engine == "fake"
    assert ladder.conclude(session, held, outcome)


def test_every_reading_of_a_page_counts_once(session: Session) -> None:
    job, [first, second] = make_prepared(session, 2)
    climb(session, first)
    assert broken(session, job) == {"every job is final", "every unit of work is final"}

    held = claimed(session, first)
    whole = recognition("whole", mode="gundam", usage=USAGE)
    before = ladder.standing(session, held)
    outcome = ladder.outcome(before, whole, flaw=None, task=Task.MARKDOWN, others=())
    assert ladder.conclude(session, held, outcome)
    climb(session, second)
    jobs.cancel(session, job.tenant, job.id)
    session.flush()
    session.refresh(job)
    assert job.output_tokens == 3 * OUTPUT_TOKENS
    assert broken(session, job) == set()

    session.execute(text("UPDATE jobs SET output_tokens = output_tokens - 3"))
    assert broken(session, job) == {"a job's tokens are those of all readings of its pages"}


def test_a_deleted_job_is_not_lost(session: Session) -> None:
    job = make_read(session)
    jobs.delete(session, job.tenant, job.id)
    session.flush()
    jobs.purge(session, job.id, objects=0)
    session.flush()

    assert broken(session, job) == set()


def test_an_acknowledged_job_without_a_row_is_lost(session: Session) -> None:
    job = make_read(session)

    found = invariants.breaches(session.connection(), [job.id, uuid4()])

    assert [(breach.harm, breach.count) for breach in found] == [(Harm.LOST, 1)]


BREAKAGES: dict[str, tuple[str, set[str]]] = {
    "a result row is removed": (
        "DELETE FROM recognitions WHERE page_no = 2",
        {
            "every succeeded page has its recognition",
            "a job's tokens are those of all readings of its pages",
        },
    ),
    "a result row is of another attempt": (
        "UPDATE recognitions SET attempt = 7 WHERE page_no = 2",
        {"every recognition is of a succeeded page, and of its last attempt"},
    ),
    "a page is counted twice": (
        "UPDATE jobs SET pages_total = 4, pages_succeeded = 4",
        {
            "a job counts as many good pages as it has",
            "a job that was read has all its pages, each with its work",
        },
    ),
    "a page is counted as failed too": (
        "UPDATE jobs SET pages_total = 4, pages_failed = 1",
        {
            "a job counts as many failed pages as it has",
            "a job that was read has all its pages, each with its work",
            "a job is called what its pages make it",
        },
    ),
    "the tokens of a page are counted twice": (
        "UPDATE jobs SET vision_tokens = coalesce(vision_tokens, 0) + 256",
        {"a job's tokens are those of all readings of its pages"},
    ),
    "a page is gone": (
        "DELETE FROM pages WHERE page_no = 2",
        {"a job that was read has all its pages, each with its work"},
    ),
    "the result is of an attempt that was not the last": (
        "UPDATE jobs SET result_attempt = 7",
        {"a job that was read has one result, of the last attempt to assemble it"},
    ),
    "the job was never assembled": (
        "DELETE FROM work WHERE kind = 'assemble'",
        {"a job that was read has one result, of the last attempt to assemble it"},
    ),
    "final work keeps a lease": (
        "UPDATE work SET lease_until = now() WHERE page_no = 2",
        {"final work has no lease"},
    ),
    "a deleted job stays": (
        "UPDATE jobs SET deleted_at = now()",
        {"no deleted job is still there"},
    ),
    "a job says nothing of its end": (
        "UPDATE jobs SET finished_at = NULL",
        {"a final job says when it ended, and a failed one why"},
    ),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_it_is_reported_that(breakage: str, session: Session) -> None:
    job = make_read(session)
    statement, says = BREAKAGES[breakage]

    session.execute(text(statement))

    assert broken(session, job) == says


def test_it_is_reported_that_work_is_stuck(session: Session) -> None:
    job, [_, page] = make_prepared(session, 2)
    claimed(session, page)

    found = invariants.breaches(session.connection(), [job.id])

    assert {(breach.says, breach.count) for breach in found} == {
        ("every job is final", 1),
        ("every unit of work is final", 2),
    }
    assert {breach.harm for breach in found} == {Harm.STUCK}


def test_it_is_reported_that_a_job_has_a_result_and_was_not_read(session: Session) -> None:
    job, _ = make_prepared(session, 2)
    jobs.cancel(session, job.tenant, job.id)
    session.flush()

    session.execute(text("UPDATE jobs SET result_attempt = 1"))

    assert broken(session, job) == {"no job that was not read has a result"}


def test_it_is_reported_that_a_job_has_more_pages_than_it_says(session: Session) -> None:
    job, _ = make_prepared(session, 2)
    jobs.cancel(session, job.tenant, job.id)
    session.flush()

    session.execute(text("UPDATE jobs SET pages_total = 1"))

    assert broken(session, job) == {
        "the pages of any job are succeeded, failed or cancelled, and no more than it has"
    }


def test_it_is_reported_that_work_is_there_twice(session: Session) -> None:
    job = make_read(session)
    session.execute(text("ALTER TABLE work DROP CONSTRAINT work_job_id_kind_page_no_key"))

    session.execute(
        text(
            "INSERT INTO work (tenant, job_id, kind, page_no, queue, priority, status, attempt) "
            "SELECT tenant, job_id, kind, page_no, queue, priority, status, attempt FROM work "
            "WHERE kind = 'assemble'"
        )
    )

    assert broken(session, job) == {
        "there is one unit of work for each page, and one of each other kind for a job"
    }
    session.rollback()  # the constraint


def test_it_is_reported_that_a_submission_made_two_jobs(session: Session) -> None:
    tenant = make_tenant(session)
    for _ in range(2):
        make_prepared(session, 1, tenant=tenant, user_metadata={"submission": "one"})

    [breach] = invariants.breaches(session.connection(), [], [ONE_JOB_A_KEY])

    assert (breach.harm, breach.examples) == (Harm.DOUBLED, ("one",))


def test_every_invariant_is_broken_by_some_test(session: Session) -> None:
    seen = {says for _, named in BREAKAGES.values() for says in named} | {
        "every acknowledged job is there, or was deleted",
        "every job is final",
        "every unit of work is final",
        "no job that was not read has a result",
        "the pages of any job are succeeded, failed or cancelled, and no more than it has",
        "there is one unit of work for each page, and one of each other kind for a job",
    }

    assert seen == {invariant.says for invariant in INVARIANTS}


def keys_of(session: Session, job: Job) -> frozenset[str]:
    query = text("SELECT image_key FROM pages WHERE job_id = :id")
    images = session.execute(query, {"id": job.id}).scalars()
    results = [storage.result_key(job.tenant, job.id, 1, kind) for kind in ("md", "txt", "json")]
    return frozenset([storage.source_key(job.tenant, job.id), *images, *results])


def test_an_object_that_a_row_names_is_missed(session: Session) -> None:
    job = make_read(session)
    source = storage.source_key(job.tenant, job.id)

    kept = compare(session.connection(), keys_of(session, job) - {source})

    assert kept.missing == {source}


@pytest.mark.parametrize("kind", ["of_deleted", "unknown", "superseded"])
def test_an_object_that_no_row_names_is_told_by_its_job(kind: str, session: Session) -> None:
    job, deleted = make_read(session), make_read(session)
    expected = keys_of(session, job)
    jobs.delete(session, deleted.tenant, deleted.id)
    session.flush()
    jobs.purge(session, deleted.id, objects=0)
    session.flush()
    stray = {
        "of_deleted": storage.page_key(deleted.tenant, deleted.id, 1, 1),
        "unknown": storage.page_key(job.tenant, uuid4(), 1, 1),
        "superseded": storage.page_key(job.tenant, job.id, 1, 99),
    }[kind]

    kept = compare(session.connection(), expected | {stray})

    assert getattr(kept, kind) == {stray}
    assert kept.missing == set()
