"""The engine with tiny random weights: how pages come, are read side by side, and go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from shared.document import FinishReason, Recognition
from shared.errors import EngineUnavailable, InvalidOptions, PageUnreadable
from shared.options import Task
from tests.conftest import Tiny
from tests.faults import jpeg, running
from worker.engine import golden
from worker.engine.deepseek import checkpoint, machine
from worker.engine.deepseek.engine import DeepSeekEngine
from worker.engine.deepseek.tokens import CELL, END, END_CELL
from worker.engine.host import EngineHost
from worker.engine.protocol import Delta, Done, Event, Failed, PageOptions, Read, Working


def noise(seed: int) -> bytes:
    """A page unlike others: to random weights, all pages of text on white look the same."""
    dice = np.random.default_rng(seed)
    coarse = dice.integers(0, 256, (10, 7, 3), dtype=np.uint8)
    return jpeg(Image.fromarray(coarse).resize((620, 877), Image.Resampling.NEAREST))


PAGES = [noise(seed) for seed in range(4)]


@pytest.fixture(scope="module")
def engine(tiny: Tiny) -> DeepSeekEngine:
    return machine.engine(checkpoint.inspect(tiny(1)))


@pytest.fixture(autouse=True)
def nothing_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does: afterwards the engine holds no page and all memory is free."""
    yield
    if "engine" in request.fixturenames:
        engine: DeepSeekEngine = request.getfixturevalue("engine")
        assert not engine.busy
        assert engine.free_blocks == 512


def request(
    page_id: int,
    image: bytes = PAGES[0],
    *,
    mode: str | None = "tiny",
    tokens: int | None = 24,
    prompt: str | None = None,
) -> Read:
    task = Task.TEXT if prompt is None else Task.CUSTOM
    options = PageOptions(task=task, mode=mode, prompt=prompt, max_output_tokens=tokens)
    return Read(page_id, f"{page_id:064}", options, image=image)


def events(engine: DeepSeekEngine, steps: int = 1000) -> list[Event]:
    said: list[Event] = []
    while engine.busy and steps:
        said += engine.step()
        steps -= 1
    return said


def recognitions(said: list[Event]) -> dict[int, Recognition]:
    return {
        event.id: Recognition.model_validate_json(event.recognition)
        for event in said
        if isinstance(event, Done)
    }


def alone(engine: DeepSeekEngine, request: Read) -> Recognition:
    engine.submit(request)
    return recognitions(events(engine))[request.id]


def test_a_page_is_read_and_counted(engine: DeepSeekEngine) -> None:
    page = alone(engine, request(1))

    assert (page.engine, page.model) == ("deepseek-ocr", engine.model)
    assert page.text
    assert page.finish_reason is FinishReason.LENGTH
    assert (page.usage.vision_tokens, page.usage.output_tokens) == (73, 24)
    assert page.usage.compression_ratio == round(24 / 73, 3)
    assert page.usage.engine_seconds > 0
    assert page.confidence is not None and 0 < page.confidence < 1
    assert page.confidence_min is not None and page.confidence_min <= page.confidence


def test_a_mode_makes_its_number_of_tokens(engine: DeepSeekEngine) -> None:
    for mode, tokens in (("small", 111), (None, 903)):
        page = alone(engine, request(1, mode=mode, tokens=1))

        assert (page.usage.vision_tokens, page.usage.output_tokens) == (tokens, 1)


def test_auto_chooses_by_the_page_and_says_what(engine: DeepSeekEngine) -> None:
    blank = jpeg(Image.new("RGB", (620, 877), "white"))
    page = alone(engine, request(1, blank, mode="auto", tokens=1))

    assert (page.mode, page.usage.vision_tokens) == ("base", 273)
    assert alone(engine, request(2, mode="tiny", tokens=1)).mode == "tiny"


def test_a_page_that_has_no_limit_of_its_own_has_the_engines(engine: DeepSeekEngine) -> None:
    assert alone(engine, request(1, tokens=None)).usage.output_tokens == 120


def test_different_pages_read_differently_and_the_same_page_the_same(
    engine: DeepSeekEngine,
) -> None:
    first, second = alone(engine, request(1)), alone(engine, request(2, PAGES[1]))

    assert first.text != second.text
    assert alone(engine, request(3)).text == first.text


def test_pages_read_side_by_side_read_as_if_alone(engine: DeepSeekEngine) -> None:
    requests = [
        request(number, PAGES[number % 4], tokens=20 + 9 * number, mode=mode)
        for number, mode in enumerate(["tiny", "small", "tiny", "base", "tiny", "small"], 1)
    ]
    expected = {one.id: alone(engine, one).text for one in requests}

    said: list[Event] = []
    for one in requests:  # each joins while the others are being read
        engine.submit(one)
        said += events(engine, steps=1)
    said += events(engine)

    assert {page: read.text for page, read in recognitions(said).items()} == expected


def test_a_page_is_named_before_it_is_touched(engine: DeepSeekEngine) -> None:
    engine.submit(request(7))

    said = events(engine)

    assert said[0] == Working((7,))
    assert all(7 in event.ids for event in said if isinstance(event, Working))
    assert [type(event) for event in said].count(Done) == 1


def test_a_cancelled_page_is_gone_with_its_memory_wherever_it_was(engine: DeepSeekEngine) -> None:
    for number in range(8):
        engine.submit(request(number, tokens=60))
    events(engine, steps=5)  # some run, some wait, some were not looked at
    assert engine.free_blocks < 512

    for number in (0, 3, 4, 7):
        engine.cancel(number)
    said = events(engine)

    assert sorted(recognitions(said)) == [1, 2, 5, 6]
    assert not any({0, 3, 4, 7} & set(event.ids) for event in said if isinstance(event, Working))


def test_the_memory_of_a_cancelled_page_serves_the_next_step(engine: DeepSeekEngine) -> None:
    engine.submit(request(1, tokens=8000))
    events(engine, steps=2)
    assert 512 - engine.free_blocks == -(-(1 + 73 + 4 + 8000) // 64)

    engine.cancel(1)

    assert engine.free_blocks == 512


def test_a_page_reserves_no_more_than_the_model_can_take(engine: DeepSeekEngine) -> None:
    engine.submit(request(1, tokens=1_000_000))
    events(engine, steps=1)

    assert 512 - engine.free_blocks == 8192 // 64
    engine.cancel(1)


def told(said: list[Event]) -> list[bytes]:
    return [event.text for event in said if isinstance(event, Delta)]


def test_text_is_told_as_it_is_read(engine: DeepSeekEngine) -> None:
    engine.submit(request(1))
    engine.tell(1)
    said = events(engine)

    assert len(told(said)) > 1
    assert b"".join(told(said)).decode().split() == recognitions(said)[1].markdown.split()


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_who_comes_later_is_told_from_the_beginning(engine: DeepSeekEngine, steps: int) -> None:
    engine.submit(request(1, tokens=60))
    engine.tell(1)
    whole = b"".join(told(events(engine)))

    engine.submit(request(2, tokens=60))
    assert told(events(engine, steps)) == []
    engine.tell(2)
    engine.tell(2)
    [first, *more] = told(events(engine))

    assert first + b"".join(more) == whole
    assert len(first) > len(whole) // 60


def test_who_looks_changes_nothing_of_what_is_read(engine: DeepSeekEngine) -> None:
    expected = [alone(engine, request(number, PAGES[number], tokens=40)) for number in range(3)]

    for number in range(3):
        engine.submit(request(number, PAGES[number], tokens=40))
    said = events(engine, steps=4)
    engine.tell(1)
    said += events(engine)

    read = recognitions(said)
    assert [read[number].text for number in range(3)] == [page.text for page in expected]
    assert [read[number].usage.output_tokens for number in range(3)] == [40, 40, 40]
    assert {event.id for event in said if isinstance(event, Delta)} == {1}


def test_a_page_that_is_not_here_is_not_told(engine: DeepSeekEngine) -> None:
    engine.tell(1)
    engine.submit(request(1))

    assert told(events(engine)) == []


@pytest.mark.parametrize(
    ("given", "code", "detail"),
    [
        (request(1, b"no image"), PageUnreadable.code, "no JPEG or PNG"),
        (request(1, PAGES[0][:2000]), PageUnreadable.code, "broken"),
        (request(1, mode="huge"), InvalidOptions.code, "tiny, small, base, large, gundam"),
        (request(1, prompt="word " * 9000), InvalidOptions.code, "tokens too many"),
    ],
)
def test_a_page_that_cannot_be_read_fails_alone(
    engine: DeepSeekEngine, given: Read, code: str, detail: str
) -> None:
    engine.submit(request(2, PAGES[1]))
    engine.submit(given)

    said = events(engine)

    [failed] = [event for event in said if isinstance(event, Failed)]
    assert (failed.id, failed.code) == (1, code)
    assert detail in failed.detail
    assert list(recognitions(said)) == [2]


def test_a_page_may_be_asked_in_ones_own_words(engine: DeepSeekEngine) -> None:
    asked = alone(engine, request(1, prompt="What is the total?"))

    assert asked.text != alone(engine, request(1)).text


def says(*tokens: int) -> AbstractContextManager[object]:
    """A model that says these in turn for ever, whatever the page."""
    turn = iter(range(10**9))

    def say(_: object, thought: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(thought.shape[0], 129_280)
        logits[:, tokens[next(turn) % len(tokens)]] = 9.0
        return logits

    return patch("worker.engine.deepseek.network.Network.say", say)


def test_a_model_that_ends_ends_the_page(engine: DeepSeekEngine) -> None:
    with says(1000, 1001, END):
        page = alone(engine, request(1))

    assert page.finish_reason is FinishReason.STOP
    assert page.usage.output_tokens == 2  # the end itself is none


def test_a_model_that_says_nothing_is_no_error(engine: DeepSeekEngine) -> None:
    with says(END):
        page = alone(engine, request(1))

    assert (page.text, page.blocks, page.confidence) == ("", [], None)
    assert page.finish_reason is FinishReason.STOP


def test_a_loop_is_stopped_and_marked_and_its_repeats_are_dropped(engine: DeepSeekEngine) -> None:
    with says(CELL, END_CELL):
        page = alone(engine, request(1, tokens=4000))

    assert page.finish_reason is FinishReason.REPETITION
    assert page.markdown == "<td></td>"
    assert page.usage.output_tokens == 2


def test_a_rule_keeps_short_loops_from_closing(engine: DeepSeekEngine) -> None:
    with says(1000):
        page = alone(engine, request(1, tokens=60))

    assert page.finish_reason is FinishReason.LENGTH
    assert page.usage.output_tokens == 60
    assert page.confidence_min is not None and page.confidence_min < 0.9  # what was forced shows


class Waits(TorchDispatchMode):
    """Notes each operation whose result the host has to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        name = func.name()
        self.operations += 1
        if name.split(".")[0] in {
            *("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"),
            *("aten::equal", "aten::is_nonzero", "aten::unique", "aten::bincount"),
        }:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_steps_follow_each_other_without_waiting_for_the_device(engine: DeepSeekEngine) -> None:
    for number in range(3):
        engine.submit(request(number, PAGES[number], tokens=60))
    events(engine, steps=4)
    running = engine._scheduler.running  # noqa: SLF001 - what the host sees only in bursts
    assert len(running) == 3

    with Waits() as waits:
        engine._batch.go_on(running, 4)  # noqa: SLF001

    assert waits.operations > 200
    assert waits.found == []
    with waits:
        assert torch.ones(1).item() == 1
    assert waits.found, "the net has no holes"
    for number in range(3):
        engine.cancel(number)


# In its own process


@pytest.fixture(scope="module")
def host(tiny: Tiny) -> Iterator[EngineHost]:
    with model_dir(tiny(1)), running("deepseek-ocr") as started:
        yield started


def model_dir(folder: Path) -> AbstractContextManager[object]:
    return patch.dict(os.environ, OCTAVO_MODEL_DIR=str(folder))


def test_the_host_reads_pages_with_it_side_by_side(host: EngineHost) -> None:
    readings = [
        host.submit(page, task=Task.TEXT, mode="tiny", max_output_tokens=30) for page in PAGES
    ]
    pages = [reading.result(60) for reading in readings]

    assert len({page.text for page in pages}) == len(PAGES)
    assert {page.model for page in pages} == {host.model}
    assert host.device["device"] == "cpu"


def test_the_host_drops_a_page_and_the_next_is_read(host: EngineHost) -> None:
    dropped = host.submit(PAGES[0], task=Task.TEXT, mode="tiny", max_output_tokens=8000)
    dropped.cancel()

    kept = host.submit(PAGES[1], task=Task.TEXT, mode="tiny", max_output_tokens=5)
    assert kept.result(60).usage.output_tokens == 5


def test_version_two_reads_too(tiny: Tiny) -> None:
    with model_dir(tiny(2)), running("deepseek-ocr-2") as host:
        page = host.submit(PAGES[0], task=Task.MARKDOWN, max_output_tokens=3).result(60)

    assert (page.engine, page.usage.vision_tokens) == ("deepseek-ocr-2", 1121)


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [
        ("deepseek-ocr-2", 1, "holds deepseek-ocr, not deepseek-ocr-2"),
        ("deepseek-ocr", None, "OCTAVO_MODEL_DIR is not set"),
    ],
)
def test_an_engine_without_its_weights_says_so(
    tiny: Tiny, name: str, version: int | None, said: str
) -> None:
    with patch.dict(os.environ), pytest.raises(EngineUnavailable, match=said):
        os.environ.pop("OCTAVO_MODEL_DIR", None)
        if version == 1:
            os.environ["OCTAVO_MODEL_DIR"] = str(tiny(1))
        with running(name):
            pass


def test_weights_that_read_the_golden_page_otherwise_are_not_worked_with(
    engine: DeepSeekEngine,
) -> None:
    golden.check(engine)

    with torch.no_grad():
        norm = engine._network.model.norm.weight  # noqa: SLF001 - a card that computes nonsense
        kept = norm.clone()
        norm.mul_(torch.linspace(-1, 1, len(norm)))
        with pytest.raises(golden.GoldenPageMisread):
            golden.check(engine)
        norm.copy_(kept)
