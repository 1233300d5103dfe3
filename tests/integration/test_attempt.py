"""An attempt at some work, where database or worker come to an end meanwhile."""

import threading
import time
from collections.abc import Iterator

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import turns, work
from shared.db import transaction
from shared.errors import DatabaseUnavailable
from shared.models import Work
from shared.status import WorkStatus
from tests.factory import make_prepared
from tests.proxy import CutAfterCommit
from worker import process
from worker.heartbeat import Heartbeat, Held
from worker.tasks import attempt

QUEUE = "recognise.fake"


@pytest.fixture
def heartbeat() -> Iterator[Heartbeat]:
    beating = Heartbeat([QUEUE], 3, {})
    process.equip(heartbeat=beating, engine=None)
    beating.start()
    yield beating
    beating.stop()


@pytest.fixture
def unit() -> Work:
    """Work that was sent."""
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        turns.pick(session, unit.queue, unit.priority, 1)
    return unit


def state(unit: Work) -> tuple[str, bool, int, int]:
    with transaction() as session:
        query = "SELECT status, sent_at IS NOT NULL, attempt, failures FROM work WHERE id = :id"
        return tuple(session.execute(text(query), {"id": unit.id}).one())


def carried_out(unit: Work) -> list[work.Claim]:
    """The claims under which the work was done."""
    done: list[work.Claim] = []

    def do(held: Held) -> None:
        done.append(held.claim)

    attempt.carry_out(unit.id, do)
    return done


def refuse_once(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Have Postgres be away at the next claim; what claims were tried."""
    claim, tries = work.claim, list[object]()

    def refuse(*arguments: object) -> work.Claim | None:
        tries.append(arguments)
        if len(tries) == 1:
            raise DatabaseUnavailable
        return claim(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(attempt, "RETRY_SECONDS", 0)
    monkeypatch.setattr(work, "claim", refuse)
    return tries


def test_a_worker_that_is_ending_sends_back_what_comes(heartbeat: Heartbeat, unit: Work) -> None:
    heartbeat.draining = True

    assert carried_out(unit) == []
    assert state(unit) == ("queued", False, 0, 0)


def test_a_claim_whose_answer_was_lost_is_found_again(
    heartbeat: Heartbeat, unit: Work, proxy: CutAfterCommit
) -> None:
    proxy.arm(b"octavo_claim(")

    [claim] = carried_out(unit)

    assert (claim.id, claim.attempt, proxy.cuts) == (unit.id, 1, 1)
    assert state(unit)[0] == "running"


def test_of_two_messages_for_the_same_work_one_is_carried_out_also_when_in_doubt(
    heartbeat: Heartbeat, unit: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:
        first = work.claim(session, unit.id, heartbeat.worker_id)
    assert first is not None
    with heartbeat.holding(first):
        refuse_once(monkeypatch)
        assert carried_out(unit) == []
        assert heartbeat.busy == 1


def test_an_attempt_that_ends_late_leaves_the_next_one_its_lease(
    heartbeat: Heartbeat, unit: Work
) -> None:
    with transaction() as session:
        first = work.claim(session, unit.id, heartbeat.worker_id)
        assert first is not None
        work.release(session, first)
        second = work.claim(session, unit.id, heartbeat.worker_id)
        assert second is not None
    late = heartbeat.holding(first)
    late.__enter__()
    with heartbeat.holding(second):
        late.__exit__(None, None, None)
        assert heartbeat.busy == 1


def test_a_database_that_is_away_is_waited_for(
    heartbeat: Heartbeat, unit: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = refuse_once(monkeypatch)

    assert len(carried_out(unit)) == 1
    assert len(tries) == 2


def test_what_was_done_outlives_an_outage_longer_than_the_lease(
    heartbeat: Heartbeat, unit: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    with transaction() as session:
        claim = work.claim(session, unit.id, heartbeat.worker_id)
        session.execute(text("UPDATE work SET lease_until = now() - interval '1 hour'"))
    assert claim is not None
    tries: list[int] = []

    def end(session: Session) -> bool:
        tries.append(1)
        if len(tries) < 3:
            raise DatabaseUnavailable
        return work.end(session, claim, WorkStatus.SUCCEEDED)

    monkeypatch.setattr(attempt, "RETRY_SECONDS", 0.1)
    assert attempt.store(Held(claim), end)
    assert state(unit)[0] == "succeeded"


def test_what_is_given_back_is_uncounted_and_its_holder_is_told(
    heartbeat: Heartbeat, unit: Work
) -> None:
    told = threading.Event()

    def do(held: Held) -> None:
        held.give_up = told.set
        while not held.lost:
            time.sleep(0.01)

    holder = threading.Thread(target=attempt.carry_out, args=[unit.id, do])
    holder.start()
    while not heartbeat.busy:
        time.sleep(0.01)
    heartbeat.give_back()
    holder.join(5)

    assert told.is_set()
    assert state(unit) == ("queued", False, 1, 0)
