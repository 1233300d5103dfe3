"""The dispatcher, on a real broker: windows, lanes, and what a dead broker costs."""

import json
import threading
import time
from collections.abc import Callable, Container, Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import new_pages, pages, turns, work, workers
from shared.advisory import AdvisoryLock
from shared.config import settings
from shared.db import Sole, sole_holder, transaction
from shared.errors import DatabaseUnavailable, DependencyUnavailable
from shared.new_pages import Rendered
from shared.status import Lane, WorkKind, WorkStatus
from tests.factory import claimed, make_job, make_prepared, overdue, recognition, work_of
from worker.dispatcher import Dispatcher

QUEUE = "recognise.fake"
A_WORKER: dict[str, Any] = {"busy": 0, "draining": False, "version": "0", "device": {}}


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings().broker_url.get_secret_value()) as client:
        client.flushall()
        yield client


def messages(broker: redis.Redis) -> list[int]:
    """The ids that wait in the broker, first sent first."""
    raw = broker.lrange(f"octavo:{QUEUE}", 0, -1)
    assert isinstance(raw, list)
    return [json.loads(json.loads(message)["headers"]["argsrepr"])[0] for message in reversed(raw)]


def a_worker(slots: int, *, seen_seconds_ago: int = 0) -> None:
    with transaction() as session:
        workers.beat(
            session,
            f"worker {slots}",
            queues=[QUEUE],
            slots=slots,
            **A_WORKER,
        )
        seen = "UPDATE workers SET last_seen_at = now() - make_interval(secs => :ago)"
        session.execute(text(seen), {"ago": seen_seconds_ago})


def prepared(pages: int, priority: Lane = Lane.INTERACTIVE) -> list[int]:
    with transaction() as session:
        _, units = make_prepared(session, pages, priority=priority)
    return [unit.id for unit in units]


def dispatched() -> int:
    dispatcher = Dispatcher()
    dispatcher.read_slots()
    return dispatcher.round()


def test_what_is_sent_fits_the_window(broker: redis.Redis) -> None:
    ids = prepared(20)
    a_worker(4)

    assert dispatched() == 5  # four slots and a quarter
    assert messages(broker) == ids[:5]
    assert dispatched() == 0


@pytest.mark.parametrize("seen_seconds_ago", [60, 3600])
def test_for_a_worker_that_is_gone_nothing_is_sent(
    broker: redis.Redis, seen_seconds_ago: int
) -> None:
    prepared(3)
    a_worker(4, seen_seconds_ago=seen_seconds_ago)

    assert dispatched() == 0
    assert messages(broker) == []


def test_the_batch_lane_keeps_its_share_beside_a_full_interactive_one(broker: redis.Redis) -> None:
    interactive = prepared(50)
    batch = prepared(50, Lane.BATCH)
    a_worker(8)

    dispatched()

    sent = set(messages(broker))
    assert (len(sent & set(interactive)), len(sent & set(batch))) == (8, 2)


def test_the_batch_lane_takes_all_that_nobody_else_wants(broker: redis.Redis) -> None:
    batch = prepared(50, Lane.BATCH)
    a_worker(8)

    dispatched()

    assert messages(broker) == batch[:10]


def test_the_batch_lane_takes_no_more_than_its_share_as_slots_come_free(
    broker: redis.Redis,
) -> None:
    prepared(50)
    batch = prepared(50, Lane.BATCH)
    a_worker(8)
    dispatched()
    with transaction() as session:  # one slot comes free, twice
        for _ in range(2):
            ended = "UPDATE work SET status = 'running', attempt = 1 WHERE id = :id"
            over = "UPDATE work SET status = 'succeeded' WHERE id = :id"
            first = session.execute(
                text(
                    "SELECT min(id) FROM work WHERE status = 'queued' AND priority = 'interactive'"
                )
            ).scalar()
            session.execute(text(ended), {"id": first})
            session.execute(text(over), {"id": first})

    dispatched()

    assert len(set(messages(broker)) & set(batch)) == 2


def test_what_the_broker_did_not_take_was_never_sent(
    broker: redis.Redis, monkeypatch: pytest.MonkeyPatch, session: Session
) -> None:
    from worker.app import app

    prepared(3)
    a_worker(4)

    def refuse(*_: object, **__: object) -> None:
        raise redis.ConnectionError

    monkeypatch.setattr(app, "send_task", refuse)
    with pytest.raises(DependencyUnavailable):
        dispatched()

    query = text("SELECT count(*) FROM work WHERE sent_at IS NOT NULL AND status = :queued")
    assert session.execute(query, {"queued": WorkStatus.QUEUED}).scalar() == 0


def test_one_dispatcher_works_and_another_stands_by() -> None:
    stop = threading.Event()
    second_worked = threading.Event()

    def stand_by() -> None:
        with sole_holder(AdvisoryLock.DISPATCH, stop):
            second_worked.set()

    with sole_holder(AdvisoryLock.DISPATCH, stop) as sole:
        second = threading.Thread(target=stand_by)
        second.start()
        sole.check()
        assert not second_worked.wait(0.5)

    assert second_worked.wait(20)
    second.join()


def test_a_broker_that_is_full_refuses_and_nothing_was_sent(
    broker: redis.Redis, session: Session
) -> None:
    prepared(3)
    a_worker(4)
    broker.config_set("maxmemory", 1000)
    try:
        with pytest.raises(DependencyUnavailable):
            dispatched()
        query = text("SELECT count(*) FROM work WHERE sent_at IS NOT NULL AND status = :queued")
        assert session.execute(query, {"queued": WorkStatus.QUEUED}).scalar() == 0
    finally:
        broker.config_set("maxmemory", 0)
    assert dispatched() == 3


def test_a_dispatcher_that_goes_round_is_in_the_table_until_it_ends(
    broker: redis.Redis,
) -> None:
    stop = threading.Event()
    dispatcher = threading.Thread(target=Dispatcher().run, args=[stop])
    dispatcher.start()
    deadline = time.monotonic() + 10
    while kinds() != ["dispatcher"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)

    stop.set()
    dispatcher.join(10)

    assert kinds() == []


def kinds() -> list[str]:
    """What the rows of the workers table are."""
    with transaction() as session:
        return list(session.execute(text("SELECT kind FROM workers")).scalars())


def a_submission() -> Callable[[], None]:
    def announce() -> None:
        with transaction() as session:
            make_job(session)

    return announce


def a_prepared_page() -> Callable[[], None]:
    with transaction() as session:
        job = make_job(session)
        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
        new_pages.begin(session, held, job, 1)

    def announce() -> None:
        with transaction() as session:
            new_pages.add(session, held, [Rendered(1, "key", 100, 200)])

    return announce


def a_last_page() -> Callable[[], None]:
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        held = claimed(session, unit)

    def announce() -> None:
        with transaction(alone=True) as session:
            pages.succeed(session, held, recognition())

    return announce


def a_lease_that_ran_out() -> Callable[[], None]:
    with transaction() as session:
        _, [unit] = make_prepared(session, 1)
        claimed(session, unit)
        overdue(session)
    return lambda: during_a_transaction(work.rescue)


def a_message_that_was_lost() -> Callable[[], None]:
    prepared(1)
    during_a_transaction(
        lambda session: session.execute(text("UPDATE work SET sent_at = now() - interval '1 h'"))
    )
    return lambda: during_a_transaction(work.resend)


def a_message_that_was_given_back() -> Callable[[], None]:
    ids = prepared(1)
    during_a_transaction(lambda session: session.execute(text("UPDATE work SET sent_at = now()")))
    return lambda: during_a_transaction(lambda session: turns.unsend(session, ids))


def during_a_transaction(do: Callable[[Session], object]) -> None:
    with transaction() as session:
        do(session)


@pytest.mark.parametrize(
    ("what", "queue"),
    [
        (a_submission, "prepare"),
        (a_prepared_page, QUEUE),
        (a_last_page, "assemble"),
        (a_lease_that_ran_out, QUEUE),
        (a_message_that_was_lost, QUEUE),
        (a_message_that_was_given_back, QUEUE),
    ],
)
def test_the_dispatcher_is_told_of(what: Callable[[], Callable[[], None]], queue: str) -> None:
    announce = what()
    with sole_holder(AdvisoryLock.DISPATCH, threading.Event()) as sole:
        sole.listen(work.BELL)
        announce()
        began = time.monotonic()
        sole.wait(20, {queue})
        assert time.monotonic() - began < 10


def test_words_of_other_queues_wake_nobody() -> None:
    announce = a_submission()
    with sole_holder(AdvisoryLock.DISPATCH, threading.Event()) as sole:
        sole.listen(work.BELL)
        announce()
        began = time.monotonic()
        sole.wait(0.3, {QUEUE, "assemble"})
        assert time.monotonic() - began >= 0.3


def test_words_of_a_queue_whose_window_is_full_are_not_heeded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    a_worker(slots=1)
    prepared(3)  # more than its window
    heeded: list[set[str]] = []
    stop = threading.Event()

    def wait(_: Sole, seconds: float, heeding: Container[str]) -> None:
        heeded.append({queue for queue in (QUEUE, "assemble") if queue in heeding})
        stop.set()

    monkeypatch.setattr(Sole, "wait", wait)
    with transaction() as session:
        workers.beat(session, "cpu", queues=["assemble"], slots=1, **A_WORKER)

    Dispatcher().run(stop)

    assert heeded == [{"assemble"}]


def test_who_holds_the_lock_hears_that_its_connection_died() -> None:
    killed = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE objid = :lock"
    with (
        pytest.raises(DatabaseUnavailable),
        sole_holder(AdvisoryLock.DISPATCH, threading.Event()) as sole,
    ):
        during_a_transaction(
            lambda session: session.execute(text(killed), {"lock": AdvisoryLock.DISPATCH})
        )
        for _ in range(3):  # the server's last words come first
            sole.wait(20, {QUEUE})
