"""How fast an engine is, as its worker tells."""

import pytest

from shared.options import Task
from tests.clock import Clock
from tests.faults import page_image, running
from worker import pace
from worker.pace import Pace


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "time", made)
    return made


def test_it_is_that_of_the_last_minute(clock: Clock) -> None:
    tokens = [0]
    measured = Pace(lambda: tokens[0])

    told = []
    for moment, count in [(10, 500), (60, 600), (100, 700), (160, 700), (230, 700)]:
        clock.now, tokens[0] = moment, count
        told.append(measured.facts()["tokens_per_s"])

    assert told == [50.0, 10.0, 2.2, 0.0, 0.0]


def test_an_engine_without_tokens_has_none(clock: Clock) -> None:
    measured = Pace(lambda: 0)
    clock.now = 5

    assert measured.facts() == {}


def test_the_host_counts_the_tokens_of_pages_that_were_read() -> None:
    with running() as host:
        read = [host.submit(page_image(), task=Task.MARKDOWN).result(30) for _ in range(2)]

        assert host.vitals.tokens == sum(one.usage.output_tokens or 0 for one in read) > 0
