"""The heartbeat: who lives, what is kept, and what is given up."""

import itertools
import time
from collections.abc import Iterator
from datetime import datetime

import pytest
from sqlalchemy import text

from shared import jobs, work, workers
from shared.db import transaction
from shared.models import Work
from shared.work import Claim
from tests.factory import make_prepared
from worker.heartbeat import Heartbeat
from worker.pace import Pace

QUEUE = "recognise.fake"


@pytest.fixture
def heartbeat() -> Iterator[Heartbeat]:
    beating = Heartbeat([QUEUE], 3, {"kind": "test"}, pace=Pace(itertools.count().__next__))
    beating.start()
    yield beating
    beating.stop()


@pytest.fixture
def claim(heartbeat: Heartbeat) -> Claim:
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        held = work.claim(session, unit.id, heartbeat.worker_id)
    assert held is not None
    return held


def lease_until(claim: Claim) -> datetime:
    """When the lease of a claim runs out."""
    with transaction() as session:
        until = session.get_one(Work, claim.id).lease_until
    assert until is not None
    return until


def nearly_over(claim: Claim) -> None:
    """Leave a second of its lease."""
    query = text("UPDATE work SET lease_until = now() + interval '1 s' WHERE id = :id")
    with transaction() as session:
        session.execute(query, {"id": claim.id})


def test_a_worker_is_counted_while_it_beats(heartbeat: Heartbeat) -> None:
    with transaction() as session:
        assert workers.live_slots(session) == {QUEUE: 3}

    heartbeat.draining = True
    heartbeat._beat()  # noqa: SLF001 - rather than wait for the next

    with transaction() as session:
        assert workers.live_slots(session) == {}


def test_what_goes_on_keeps_its_lease(heartbeat: Heartbeat, claim: Claim) -> None:
    with heartbeat.holding(claim) as held:
        nearly_over(claim)
        before = lease_until(claim)
        heartbeat._beat()  # noqa: SLF001

        assert lease_until(claim) > before
        assert not held.lost


def test_what_stands_still_loses_it(heartbeat: Heartbeat, claim: Claim) -> None:
    with heartbeat.holding(claim) as held:
        held._moved_at -= 3600  # noqa: SLF001 - as if an hour had passed
        before = lease_until(claim)
        heartbeat._beat()  # noqa: SLF001

        assert lease_until(claim) == before


def test_progress_counts_as_going_on(heartbeat: Heartbeat, claim: Claim) -> None:
    with heartbeat.holding(claim) as held:
        held._moved_at -= 3600  # noqa: SLF001
        held.progressed = lambda: True

        assert held.goes_on()


def test_what_was_cancelled_is_given_up(heartbeat: Heartbeat, claim: Claim) -> None:
    given_up: list[Claim] = []
    with heartbeat.holding(claim) as held:
        held.give_up = lambda: given_up.append(claim)
        with transaction() as session:
            jobs.cancel(session, claim.tenant, claim.job_id)
        heartbeat._beat()  # noqa: SLF001

        assert held.lost
        assert given_up == [claim]


def test_what_ended_in_between_is_not_taken_for_lost(heartbeat: Heartbeat, claim: Claim) -> None:
    with heartbeat.holding(claim) as held:
        pass
    heartbeat._beat()  # noqa: SLF001

    assert not held.lost


def test_a_worker_tells_what_it_runs_on_and_how_fast_it_is(heartbeat: Heartbeat) -> None:
    heartbeat.hurry()
    query = text("SELECT device FROM workers WHERE id = :id")
    within = time.monotonic() + 5
    while time.monotonic() < within:
        with transaction() as session:
            device = session.execute(query, {"id": heartbeat.worker_id}).scalar_one()
        if device.get("tokens_per_s"):
            break
    assert device["kind"] == "test"
    assert device["tokens_per_s"] > 0
