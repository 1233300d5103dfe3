"""Who is next: between tenants, between the jobs of one, and between lanes."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import new_pages, turns, work, workers
from shared.db import transaction
from shared.models import Job
from shared.served import HALF_LIFE_SECONDS, Served
from shared.status import Lane, WorkKind, WorkStatus
from tests.factory import claimed, due_now, make_job, make_prepared, make_tenant, unread, work_of
from worker import dispatcher
from worker.dispatcher import Dispatcher

QUEUE = "recognise.fake"


def pick(session: Session, most: int) -> list[int]:
    return turns.pick(session, QUEUE, Lane.INTERACTIVE, most)


def job_ids(session: Session, ids: list[int]) -> list[UUID]:
    """The jobs of units of work, in the order of the units."""
    rows = session.execute(text("SELECT id, job_id FROM work WHERE id = ANY(:ids)"), {"ids": ids})
    found = {row.id: row.job_id for row in rows}
    return [found[id_] for id_ in ids]


def rendered(session: Session, job: Job, numbers: range, *, behind: int) -> None:
    """Let prepare have put more pages of a job into its queue."""
    [unit] = work_of(session, job, WorkKind.PREPARE)
    held = claimed(session, unit)
    new_pages.begin(session, held, job, 2_000)
    rows = [new_pages.Rendered(number, "key", 1, 1) for number in numbers]
    assert new_pages.add(session, held, rows, behind=behind)
    work.release(session, held)


class TestBetweenTenants:
    @pytest.mark.parametrize("seed", range(12))
    def test_a_pick_is_the_smallest_shares_whatever_the_tenants_have(
        self, session: Session, seed: int
    ) -> None:
        """Compared with sorting everything that is due."""
        chance = random.Random(seed)  # noqa: S311 - no secret
        tenants = {make_tenant(session): chance.choice([0.5, 1, 1, 3]) for _ in range(6)}
        most_busy = chance.choice([7, 10_000])
        turns: list[float] = []
        for tenant, weight in tenants.items():
            busy, due = chance.choice([0, 0, 1, 9]), chance.choice([0, 1, 3, 30])
            session.execute(
                text("UPDATE tenants SET weight = :weight, max_busy = :busy WHERE id = :id"),
                {"weight": weight, "busy": most_busy, "id": tenant},
            )
            if busy:
                make_prepared(session, busy, tenant=tenant)
                sent = "UPDATE work SET sent_at = now() WHERE tenant = :id AND kind = 'recognise'"
                session.execute(text(sent), {"id": tenant})
            if due:
                make_prepared(session, due, tenant=tenant)
            may = max(0, min(due, most_busy - busy))
            turns += [(busy + number) / weight for number in range(1, may + 1)]
        before = Counter(busy_tenants(session))
        most = chance.choice([1, 5, 20, 50])

        ids = pick(session, most)

        after = Counter(busy_tenants(session))
        picked = [
            (before[tenant] + number) / tenants[tenant]
            for tenant, more in (after - before).items()
            for number in range(1, more + 1)
        ]
        assert sorted(picked) == sorted(turns)[: len(ids)]
        assert len(ids) == len(set(ids)) == min(most, len(turns))

    def test_a_tenant_far_behind_the_others_gets_more_than_is_read_of_it_at_once(
        self, session: Session
    ) -> None:
        for _ in range(5):
            make_prepared(session, 9)
        session.execute(text("UPDATE work SET sent_at = now() WHERE kind = 'recognise'"))
        for [tenant] in session.execute(text("SELECT id FROM tenants")).all():
            make_prepared(session, 20, tenant=tenant)
        behind = make_tenant(session)
        make_prepared(session, 20, tenant=behind)

        ids = pick(session, 15)

        assert Counter(tenants_of(session, ids))[behind] in {9, 10}  # then all have about nine

    def test_a_newcomer_is_next_however_much_another_has(self, session: Session) -> None:
        loud, quiet = make_tenant(session), make_tenant(session)
        make_prepared(session, 400, tenant=loud)
        pick(session, 20)
        make_prepared(session, 20, tenant=quiet)

        for _ in range(4):
            ids = pick(session, 5)
            assert set(tenants_of(session, ids)) == {quiet}

    def test_who_was_given_much_lately_stands_back_until_the_other_has_had_as_much(
        self, session: Session
    ) -> None:
        loud, quiet = make_tenant(session), make_tenant(session)
        served = Served()
        make_prepared(session, 200, tenant=loud)
        turns.pick(session, QUEUE, Lane.INTERACTIVE, 40, served)
        session.execute(text("DELETE FROM work WHERE sent_at IS NOT NULL"))  # all of it is read
        make_prepared(session, 100, tenant=quiet)

        first = turns.pick(session, QUEUE, Lane.INTERACTIVE, 38, served)
        newcomer = set(tenants_of(session, first))
        session.execute(text("DELETE FROM work WHERE id = ANY(:ids)"), {"ids": first})
        then = turns.pick(session, QUEUE, Lane.INTERACTIVE, 12, served)

        assert newcomer == {quiet}
        assert Counter(tenants_of(session, then))[loud] in range(4, 7)

    def test_what_was_given_is_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: now)
        served, tenant = Served(), uuid4()
        for _ in range(8):
            served.note(tenant)

        now = HALF_LIFE_SECONDS
        assert served.units() == {tenant: 4}
        now = 3 * HALF_LIFE_SECONDS
        assert served.units() == {tenant: 1}
        now = 20 * HALF_LIFE_SECONDS
        assert served.units() == {}

    def test_twice_the_weight_is_twice_the_share(self, session: Session) -> None:
        heavy, light = make_tenant(session), make_tenant(session)
        session.execute(text("UPDATE tenants SET weight = 2 WHERE id = :id"), {"id": heavy})
        for tenant in (heavy, light):
            make_prepared(session, 60, tenant=tenant)

        shares = Counter(tenants_of(session, pick(session, 30)))

        assert shares == {heavy: 20, light: 10}


class TestBetweenTheJobsOfATenant:
    def test_a_page_does_not_wait_for_the_window_of_a_long_job(self, session: Session) -> None:
        tenant = make_tenant(session)
        long = make_job(session, tenant)
        rendered(session, long, range(1, 65), behind=0)
        taken = pick(session, 5)
        short, [page] = make_prepared(session, 1, tenant=tenant)

        ids = pick(session, 3)

        assert set(job_ids(session, taken)) == {long.id}
        assert page.id in ids
        assert Counter(job_ids(session, ids)) == {short.id: 1, long.id: 2}

    def test_two_jobs_that_come_together_are_read_in_turns(self, session: Session) -> None:
        tenant = make_tenant(session)
        one, other = (make_job(session, tenant) for _ in range(2))
        for job in (one, other):
            rendered(session, job, range(1, 65), behind=0)

        assert Counter(job_ids(session, pick(session, 20))) == {one.id: 10, other.id: 10}

    def test_a_long_job_gives_way_for_a_while_and_not_for_ever(self, session: Session) -> None:
        tenant = make_tenant(session)
        long = make_job(session, tenant)
        rendered(session, long, range(100, 101), behind=63)
        minutes_later = "UPDATE work SET turn_at = turn_at - interval '11 minutes'"
        session.execute(text(minutes_later))
        make_prepared(session, 10, tenant=tenant)

        assert set(job_ids(session, pick(session, 1))) == {long.id}

    def test_rendering_goes_round_among_jobs(self, session: Session) -> None:
        """A long job that comes due again stands behind one that has not begun."""
        tenant = make_tenant(session)
        long = make_job(session, tenant)
        [unit] = work_of(session, long, WorkKind.PREPARE)
        work.release(session, claimed(session, unit), delay_seconds=0.01)
        session.execute(text("UPDATE work SET due_at = due_at - interval '1 minute'"))
        short = make_job(session, tenant)

        [first] = turns.pick(session, WorkKind.PREPARE, Lane.INTERACTIVE, 1)

        assert job_ids(session, [first]) == [short.id]

    def test_work_that_rests_is_nobodys_turn(self, session: Session) -> None:
        _, units = make_prepared(session, 3)
        work.release(session, claimed(session, units[0]), delay_seconds=60)

        assert units[0].id not in pick(session, 3)

        due_now(session)
        assert pick(session, 3) == [units[0].id]


class TestBetweenLanes:
    @contextmanager
    def reading(self, monkeypatch: pytest.MonkeyPatch, slots: int) -> Iterator[Any]:
        """A worker with so many slots that reads what it is sent, each page in one round."""
        with transaction() as session:
            workers.beat(
                session,
                "worker",
                queues=[QUEUE],
                slots=slots,
                busy=0,
                draining=False,
                version="0",
                device={},
            )
        sent: list[int] = []
        monkeypatch.setattr(
            dispatcher, "_publish", lambda picked: sent.extend(id_ for _, id_ in picked)
        )
        rounds = Dispatcher()
        rounds.read_slots()
        read: Counter[str] = Counter()

        def go_on() -> Counter[str]:
            rounds.round()
            for work_id in sent[:slots]:
                with transaction() as session:
                    held = work.claim(session, work_id, "worker")
                    assert held is not None
                    work.end(session, held, WorkStatus.SUCCEEDED)
                    lane = "SELECT priority FROM work WHERE id = :id"
                    read[session.execute(text(lane), {"id": work_id}).scalar_one()] += 1
            del sent[:slots]
            return read

        yield go_on

    @pytest.mark.parametrize("slots", [1, 2, 8])
    def test_batch_keeps_its_share_beside_endless_interactive_work(
        self, monkeypatch: pytest.MonkeyPatch, slots: int
    ) -> None:
        with transaction() as session:
            make_prepared(session, 200)
            make_prepared(session, 200, priority=Lane.BATCH)

        with self.reading(monkeypatch, slots) as go_on:
            for _ in range(64 // slots):
                read = go_on()

        assert read["batch"] >= 0.15 * read.total()
        assert read["interactive"] >= 0.5 * read.total() - 2

    def test_endless_batch_work_leaves_the_front_to_who_waits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with transaction() as session:
            make_prepared(session, 200, priority=Lane.BATCH)

        with self.reading(monkeypatch, 4) as go_on:
            go_on()
            with transaction() as session:
                make_prepared(session, 8)
            for _ in range(4):
                read = go_on()

        assert read["interactive"] == 8

    def test_a_loud_tenants_batch_does_not_shut_out_anothers(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with transaction() as session:
            make_prepared(session, 200, priority=Lane.BATCH)
            job, _ = make_prepared(session, 8, priority=Lane.BATCH)

        with self.reading(monkeypatch, 4) as go_on:
            for _ in range(6):
                go_on()

        with transaction() as session:
            assert unread(session, job) == []


def tenants_of(session: Session, ids: list[int]) -> list[UUID]:
    rows = session.execute(text("SELECT tenant FROM work WHERE id = ANY(:ids)"), {"ids": ids})
    return list(rows.scalars())


def busy_tenants(session: Session) -> list[UUID]:
    query = "SELECT tenant FROM work WHERE queue = :queue AND sent_at IS NOT NULL"
    return list(session.execute(text(query), {"queue": QUEUE}).scalars())
