"""Pages on their way in: prepared by other processes, which may die of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from shared.document import FinishReason
from shared.errors import InternalError, OctavoError, PageUnreadable
from tests.conftest import Tiny
from tests.unit.test_deepseek_engine import PAGES, events, noise, recognitions, request
from worker.engine import golden, images
from worker.engine.deepseek import checkpoint, choice, encoder, intake, machine, views
from worker.engine.deepseek import engine as engine_module
from worker.engine.deepseek.engine import DeepSeekEngine
from worker.engine.deepseek.intake import Crew, CrewLost
from worker.engine.deepseek.views import MODES, Views
from worker.engine.protocol import Failed

GUNDAM = {"gundam": MODES[1]["gundam"]}


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew(2)
    yield made
    made.close()


def taken(crew: Crew, count: int) -> dict[int, Views | OctavoError]:
    found: dict[int, Views | OctavoError] = {}
    while len(found) < count:
        came = crew.take(30)
        assert came
        found.update(came)
    return found


def test_a_page_prepared_elsewhere_is_the_same_to_the_bit(crew: Crew) -> None:
    for number, mode in enumerate(("gundam", "tiny")):
        crew.put(number, PAGES[number], {mode: MODES[1][mode]})
    assert crew.room == 0

    found = taken(crew, 2)

    assert crew.room == 2
    for number, mode in enumerate(("gundam", "tiny")):
        here, there = views.of(images.decoded(PAGES[number]), MODES[1][mode]), found[number]
        assert isinstance(there, Views)
        assert (there.size, there.grid, there.mode) == (here.size, here.grid, here.mode)
        assert np.array_equal(there.whole, here.whole)
        assert len(there.tiles) == len(here.tiles)
        assert all(map(np.array_equal, there.tiles, here.tiles))


def test_a_crew_chooses_the_mode_by_the_page(crew: Crew) -> None:
    crew.put(1, golden.image(), MODES[1])

    found = taken(crew, 1)[1]

    assert isinstance(found, Views)
    assert found.mode == choice.among(MODES[1], images.decoded(golden.image()))
    assert found.mode != MODES[1]["gundam"]


def test_views_stay_what_they_are_when_the_next_page_comes(crew: Crew) -> None:
    crew.put(1, PAGES[0], GUNDAM)
    [first] = taken(crew, 1).values()
    assert isinstance(first, Views)
    before = first.whole.copy()
    for number in (2, 3):
        crew.put(number, PAGES[number], GUNDAM)
    taken(crew, 2)

    assert np.array_equal(first.whole, before)


def test_an_image_that_is_none_is_told(crew: Crew) -> None:
    crew.put(1, b"no image", GUNDAM)

    assert isinstance(taken(crew, 1)[1], PageUnreadable)


def test_a_process_that_dies_costs_its_page_alone(crew: Crew) -> None:
    crew.put(1, PAGES[0], GUNDAM)
    victim = next(hand for hand in crew._hands if hand.page == 1)  # noqa: SLF001
    os.kill(victim.process.pid, signal.SIGKILL)
    crew.put(2, PAGES[1], GUNDAM)

    found = taken(crew, 2)

    assert isinstance(found[1], PageUnreadable)
    assert isinstance(found[2], Views)
    for number in (3, 4):
        crew.put(number, PAGES[2], GUNDAM)
    assert all(isinstance(one, Views) for one in taken(crew, 2).values())


def test_a_page_that_is_dropped_frees_whoever_hangs_on_it(crew: Crew) -> None:
    crew.put(1, PAGES[0], GUNDAM)
    victim = next(hand for hand in crew._hands if hand.page == 1)  # noqa: SLF001
    os.kill(victim.process.pid, signal.SIGSTOP)

    crew.drop(1)
    crew.drop(99)

    assert crew.room == 2
    assert crew.take(0) == []


def test_processes_that_all_die_are_not_the_pages_fault(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "PREPARER", ("-c", "raise SystemExit(1)"))
    for hand in list(crew._hands):  # noqa: SLF001
        crew._replace(hand)

    with pytest.raises(CrewLost):
        for number in range(intake.MOST_DEATHS):
            crew.put(number, PAGES[0], GUNDAM)
            assert isinstance(taken(crew, 1)[number], PageUnreadable)


def test_preparing_needs_no_torch() -> None:
    script = "import sys; sys.modules['torch'] = None; import worker.engine.deepseek.preparer"

    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# The engine as it is beside a card, but on the CPU


@pytest.fixture(scope="module")
def plain(tiny: Tiny) -> DeepSeekEngine:
    return machine.engine(checkpoint.inspect(tiny(1)), torch.device("cpu"))


@pytest.fixture(scope="module")
def beside_a_card(tiny: Tiny) -> Iterator[DeepSeekEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            machine, "CPU", replace(machine.CPU, intake=3, ahead=3, preparers=2, is_behind=True)
        )
        engine = machine.engine(checkpoint.inspect(tiny(1)), torch.device("cpu"))
    yield engine
    engine.close()


def test_a_step_behind_pages_read_as_they_do_otherwise(
    plain: DeepSeekEngine, beside_a_card: DeepSeekEngine
) -> None:
    requests = [
        request(number, noise(number), tokens=1 + 7 * number, mode=mode)
        for number, mode in enumerate(["tiny", "small", "tiny", "base", "gundam"] * 2)
    ]
    found = []
    for engine in (plain, beside_a_card):
        for one in requests:
            engine.submit(one)
        found.append(recognitions(events(engine)))
        assert engine.free_blocks == 512

    expected, read = found
    assert len(read) == len(requests)
    assert {page: one.text for page, one in read.items()} == {
        page: one.text for page, one in expected.items()
    }
    assert {one.usage.output_tokens for one in read.values()} == {1 + 7 * n for n in range(10)}
    assert all(one.finish_reason is FinishReason.LENGTH for one in read.values())


def test_a_step_behind_cancelled_pages_are_not_spoken_of(beside_a_card: DeepSeekEngine) -> None:
    engine = beside_a_card
    for number in range(8):
        engine.submit(request(number, noise(number), tokens=40))
    while engine.rows_in_use < 3:
        assert not recognitions(events(engine, steps=1))

    for number in (0, 2, 5, 7):
        engine.cancel(number)
    said = events(engine)

    assert sorted(recognitions(said)) == [1, 3, 4, 6]
    assert engine.free_blocks == 512


def test_pages_for_which_memory_does_not_suffice_are_begun_in_smaller_company(
    beside_a_card: DeepSeekEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, features, companies = beside_a_card, encoder.features, []
    large = MODES[1]["large"].side

    def short_of_memory(network: object, pages: list[Views]) -> list[torch.Tensor]:
        companies.append(len(pages))
        if len(pages) > 1 or pages[0].whole.shape[0] == large:
            raise torch.OutOfMemoryError
        return features(network, pages)  # type: ignore[arg-type]

    monkeypatch.setattr(encoder, "features", short_of_memory)
    monkeypatch.setattr(engine_module, "GATHER_SECONDS", 60)
    for number, mode in enumerate(["tiny", "large", "tiny"]):
        engine.submit(request(number, PAGES[number], tokens=5, mode=mode))
    said = events(engine)

    assert sorted(recognitions(said)) == [0, 2]
    [failed] = [event for event in said if isinstance(event, Failed)]
    assert (failed.id, failed.code) == (1, InternalError.code)
    assert max(companies) > 1
    assert engine.free_blocks == 512
