"""A worker that is dead ends by itself; one that waits for others does not."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from shared import health
from shared.config import settings
from worker import liveness
from worker.heartbeat import Heartbeat
from worker.liveness import Consumption, Liveness

QUEUE = "recognise.fake"
SECONDS = 0.5


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    short = settings().model_copy(update={"consume_seconds": SECONDS})
    monkeypatch.setattr(liveness, "settings", lambda: short)
    monkeypatch.setattr(liveness, "QUIET_SECONDS", 0)
    monkeypatch.setattr(liveness, "ASK_BROKER_SECONDS", 0)


@pytest.fixture
def broker() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings().broker_url.get_secret_value()) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def heartbeat() -> Heartbeat:
    return Heartbeat([QUEUE], 2, {})


def stopped(
    heartbeat: Heartbeat, count: Callable[..., int], *, within_seconds: float = 2 * SECONDS
) -> bool:
    """Whether the proof fails in that time; usually a little more than it has."""
    proof = Consumption(heartbeat, count)
    deadline = time.monotonic() + within_seconds
    while time.monotonic() < deadline:
        if proof.has_stopped():
            return True
        time.sleep(0.05)
    return False


def test_messages_that_wait_while_there_is_room_prove_that_nothing_is_taken(
    heartbeat: Heartbeat, broker: redis.Redis
) -> None:
    from worker.app import count_waiting

    assert not stopped(heartbeat, count_waiting)
    broker.lpush(f"octavo:{QUEUE}", "a message")

    assert stopped(heartbeat, count_waiting, within_seconds=20)


def test_a_worker_that_took_a_message_meanwhile_is_well(
    heartbeat: Heartbeat, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waiting(_: object) -> int:
        heartbeat.note_message()
        return 1

    monkeypatch.setattr(liveness, "QUIET_SECONDS", SECONDS / 2)
    assert not stopped(heartbeat, waiting)


def test_a_worker_without_a_free_hand_need_not_take_any(heartbeat: Heartbeat) -> None:
    for _ in range(heartbeat.slots):
        heartbeat.take_up()

    assert not stopped(heartbeat, lambda _: 1)


def test_a_broker_that_is_away_proves_nothing(heartbeat: Heartbeat) -> None:
    def refuse(_: object) -> int:
        raise redis.ConnectionError

    assert not stopped(heartbeat, refuse)


def test_a_heartbeat_that_stands_still_is_death_and_one_that_fails_is_not(
    heartbeat: Heartbeat,
) -> None:
    found = Liveness(heartbeat, None, Consumption(heartbeat, lambda _: 0))
    assert found.health() == health.Health([], [])

    heartbeat.renewed_at -= 3600
    assert found.health().is_live
    assert not found.health().is_ready

    heartbeat.tried_at -= 3600
    assert not found.health().is_live


def test_a_worker_whose_consumer_stands_still_ends_with_an_error(
    broker: redis.Redis, tmp_path: Path
) -> None:
    code = """
import time
from worker import run
run._consume = lambda queues, slots: print("ready", flush=True) or time.sleep(60)
if __name__ == "__main__":
    from shared import log
    log.configure("worker-cpu")
    run.run_cpu_worker(2)
"""
    script = tmp_path / "still.py"
    script.write_text(code)
    file = tmp_path / "health"
    broker.lpush("octavo:prepare", "a message")
    environment = os.environ | {
        "OCTAVO_CONSUME_SECONDS": "2",
        "OCTAVO_HEALTH_FILE": str(file),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }

    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode != 0
    assert '"event": "worker_dead"' in done.stderr
    assert "it took no message for 2 s" in done.stderr
    assert health.read(file).dead
