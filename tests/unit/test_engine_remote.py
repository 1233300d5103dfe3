"""`remote` against a real HTTP server on this machine, which is sound, or sick in some way."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest
from PIL import Image

from deploy.embedded import ports
from shared.document import BlockKind, FinishReason, Recognition
from shared.errors import EngineUnavailable, InternalError, PageTooLong, PageUnreadable
from shared.options import Task
from tests import completions
from tests.completions import (
    Completions,
    Say,
    chunk,
    events,
    saying,
    status,
    usage,
    whole,
)
from tests.faults import page_image, running
from tests.serving import served
from worker.engine import golden, output
from worker.engine.deepseek import prompts
from worker.engine.deepseek.prompts import Use
from worker.engine.protocol import Delta, Done, Event, Failed, PageOptions, Read, Working
from worker.engine.remote import calls
from worker.engine.remote.engine import RemoteEngine
from worker.engine.remote.errors import ServerRefuses
from worker.engine.remote.settings import RemoteSettings
from worker.engine.remote.shown import Shown
from worker.engine.spawn import environment

PAGE = page_image(size=(999, 1998))
TITLE = ("<|ref|>", "title", "<|/ref|>", "<|det|>", "[[100, 50, 900, 90]]", "<|/det|>", "\n# Leaf")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_PAUSE_SECONDS", 0.01)


@contextmanager
def engine_at(port: int, **settings: Any) -> Iterator[RemoteEngine]:
    given = {"url": f"http://127.0.0.1:{port}/v1", "silence_seconds": 5, **settings}
    engine = RemoteEngine(RemoteSettings(**given))
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def engine_on(*script: Say, **settings: Any) -> Iterator[tuple[RemoteEngine, Completions]]:
    app = Completions(*script)
    with served(app) as port, engine_at(port, **settings) as engine:
        yield engine, app


def request(page_id: int = 1, *, image: bytes = PAGE, **options: Any) -> Read:
    asked = PageOptions(**{"task": Task.MARKDOWN, **options})
    return Read(page_id, "c" * 64, asked, image=image)


def ending_of(engine: RemoteEngine, *requests: Read) -> list[Event]:
    """What is said of pages, until the engine holds none."""
    for one in requests:
        engine.submit(one)
    said: list[Event] = []
    deadline = time.monotonic() + 20
    while engine.busy:
        assert time.monotonic() < deadline
        said += [event for event in engine.step() if not isinstance(event, Working)]
    return said


def told(engine: RemoteEngine) -> tuple[bytes, Event]:
    """What is told of a page from its beginning on, and its end."""
    engine.submit(request())
    engine.tell(1)
    *deltas, end = ending_of(engine)
    return b"".join(delta.text for delta in deltas if isinstance(delta, Delta)), end


def read(engine: RemoteEngine, **options: Any) -> Recognition:
    [done] = ending_of(engine, request(**options))
    assert isinstance(done, Done), done
    return output.recognition(done.recognition, max_bytes=2**20)


def failed(engine: RemoteEngine) -> Exception:
    [event] = ending_of(engine, request())
    assert isinstance(event, Failed), event
    return output.error(event.code, event.detail)


def until(holds: Callable[[], bool], engine: RemoteEngine) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        list(engine.step()) if engine.busy else time.sleep(0.01)


# What is asked


def test_the_page_goes_as_it_is_with_the_official_words_and_the_rule_against_repeats() -> None:
    with engine_on(saying("x"), model="ocr", api_key="sesame") as (engine, app):
        read(engine, max_output_tokens=99)

    [asked] = app.requests
    image, text = asked.request["messages"][0]["content"]
    kind, _, data = image["image_url"]["url"].partition(";base64,")
    assert (kind, base64.b64decode(data)) == ("data:image/jpeg", PAGE)
    assert text == {"type": "text", "text": "<|grounding|>Convert the document to markdown."}
    assert (asked.request["model"], asked.request["max_tokens"]) == ("ocr", 99)
    assert asked.request["temperature"] == 0
    assert asked.request["skip_special_tokens"] is False
    assert asked.request["vllm_xargs"] == {
        "ngram_size": 30,
        "window_size": 90,
        "whitelist_token_ids": [128821, 128822],
    }
    assert asked.headers["authorization"] == "Bearer sesame"


def test_a_strict_server_is_spared_what_only_vllm_knows() -> None:
    with engine_on(saying("x"), vllm=False, logprobs=False) as (engine, app):
        read(engine)

    assert not {"skip_special_tokens", "vllm_xargs", "logprobs"} & app.requests[0].request.keys()
    assert "authorization" not in app.requests[0].headers


def test_a_png_is_sent_as_one() -> None:
    encoded = io.BytesIO()
    Image.new("RGB", (40, 40)).save(encoded, "PNG")
    with engine_on(saying("x")) as (engine, app):
        read(engine, image=encoded.getvalue())

    content = app.requests[0].request["messages"][0]["content"]
    assert content[0]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "words",
    [
        "a<image>b",
        "<|det|>[[0,0,9,9]]",
        "<|g<|ref|>rounding|>",
        "<\uff5cx\uff5c>",
        "<im<image>age>",
    ],
)
def test_no_special_token_can_be_made_of_an_askers_words(words: str) -> None:
    said = prompts.text(Use.QUESTION, words=words)

    assert not any(mark in said for mark in ("<image>", "<|", "\uff5c>"))


def test_no_more_pages_are_asked_for_at_once_than_the_server_is_to_have() -> None:
    with engine_on(saying("x", pause=0.05), concurrency=3) as (engine, app):
        said = ending_of(engine, *(request(number) for number in range(1, 9)))

    assert len([event for event in said if isinstance(event, Done)]) == 8
    assert app.most_at_once == 3
    assert engine.slots == 3


# What is made of the answer


def test_the_markup_of_the_answer_becomes_blocks() -> None:
    with engine_on(saying(*TITLE)) as (engine, _):
        page = read(engine)

    [block] = page.blocks
    assert (page.markdown, page.text) == ("# Leaf", "Leaf")
    assert block.kind is BlockKind.TITLE
    assert block.box is not None
    assert (block.box.x0, block.box.y1) == (100, 180)
    assert (page.engine, page.model, page.mode) == ("remote", "deepseek-ai/DeepSeek-OCR", None)


def test_probabilities_of_tokens_become_confidence() -> None:
    with engine_on(saying(*TITLE, logprob=-0.5)) as (engine, _):
        page = read(engine)

    assert page.confidence == page.blocks[0].confidence == pytest.approx(0.60653, abs=1e-4)


def test_a_server_that_tells_no_probabilities_leaves_the_confidence_open() -> None:
    with engine_on(saying(*TITLE, logprob=None)) as (engine, _):
        page = read(engine)

    assert page.confidence is None
    assert page.blocks[0].confidence is None


def test_tokens_that_are_not_the_text_count_for_the_page_and_for_no_block() -> None:
    other = chunk("something else", logprob=-0.5)
    other["choices"][0]["delta"]["content"] = "".join(TITLE)
    with engine_on(events(other, chunk(reason="stop"), "[DONE]")) as (engine, _):
        page = read(engine)

    assert page.confidence == pytest.approx(0.60653, abs=1e-4)
    assert page.blocks[0].confidence is None


def test_a_letter_that_is_spread_over_tokens_is_one() -> None:
    halves = [chunk("\ufffd", logprob=-0.1) for _ in range(2)]
    for half, byte in zip(halves, "\u00e9".encode(), strict=True):
        half["choices"][0]["delta"]["content"] = ""
        half["choices"][0]["logprobs"]["content"][0]["bytes"] = [byte]
    halves[1]["choices"][0]["delta"]["content"] = "\u00e9"
    with engine_on(events(*halves, chunk(reason="stop"))) as (engine, _):
        page = read(engine)

    assert page.text == "\u00e9"
    assert page.blocks[0].confidence is not None


def test_the_servers_counts_become_usage() -> None:
    with engine_on(saying("a", "b", "c")) as (engine, _):
        cost = read(engine).usage

    assert (cost.vision_tokens, cost.output_tokens, cost.compression_ratio) == (270, 3, 0.011)
    assert cost.engine_seconds > 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("content_filter", FinishReason.LENGTH),
    ],
)
def test_why_it_ended_is_told(said: str, reason: FinishReason) -> None:
    with engine_on(saying("x", reason=said)) as (engine, _):
        assert read(engine).finish_reason is reason


def test_an_answer_that_goes_round_is_stopped_and_cut_to_its_first_turn() -> None:
    with engine_on(saying("begin", *("one ", "two ", "three ") * 2000)) as (engine, app):
        page = read(engine)
        until(lambda: app.closed == 1, engine)

    assert page.finish_reason is FinishReason.REPETITION
    assert page.text.startswith("beginone two three")
    assert page.text.count("three") < 6


def test_an_end_token_that_a_server_shows_is_no_text() -> None:
    end = "<\uff5cend\u2581of\u2581sentence\uff5c>"
    with engine_on(saying("Leaf", end)) as (engine, _):
        assert read(engine).text == "Leaf"


def test_a_server_that_does_not_stream_is_understood() -> None:
    answer = {
        "choices": [{"message": {"content": "Leaf"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
    }
    with engine_on(whole(answer)) as (engine, _):
        page = read(engine)

    assert (page.text, page.usage.output_tokens) == ("Leaf", 1)


# What is told meanwhile


def test_text_is_passed_on_without_markup_to_who_wants_it() -> None:
    with engine_on(saying(*TITLE, "\n\nand ", "more")) as (engine, _):
        text, done = told(engine)

    assert text == b"\n# Leaf\n\nand more"
    assert isinstance(done, Done)


def test_who_comes_later_is_told_from_the_beginning() -> None:
    with engine_on(saying(*TITLE, "\n\nand ", "more", pause=0.05)) as (engine, _):
        engine.submit(request())
        later = time.monotonic() + 0.2
        until(lambda: time.monotonic() > later, engine)
        engine.tell(1)
        *deltas, done = ending_of(engine)

    assert b"".join(d.text for d in deltas if isinstance(d, Delta)) == b"\n# Leaf\n\nand more"
    assert isinstance(done, Done)


def test_nobody_who_did_not_ask_is_told() -> None:
    with engine_on(saying("a", "b")) as (engine, _):
        assert [type(event) for event in ending_of(engine, request())] == [Done]


def test_a_second_try_does_not_tell_the_same_again() -> None:
    with engine_on(completions.cut, saying("half", " and half")) as (engine, _):
        text, done = told(engine)

    assert text == b"half and half"
    assert isinstance(done, Done)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_markers_are_left_out_wherever_the_text_is_cut(size: int) -> None:
    said = "a <b> <|x|> " + "".join(TITLE) + " 1 < 2 <|"
    shown = Shown(Use.DOCUMENT)

    pieces = [shown.more(said[at : at + size]) for at in range(0, len(said), size)]

    assert "".join(pieces) == "a <b> <|x|> \n# Leaf 1 < 2 "


def test_labels_that_are_text_are_shown() -> None:
    shown = Shown(Use.OCR)

    assert shown.more("<|ref|>Leaf<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>") == "Leaf"


# What may pass

PASSING = {
    "too many": status(429),
    "unavailable": status(503),
    "failed": status(500),
    "bad gateway": status(502),
    "cut": completions.cut,
}
FAILING = {
    "failed": status(500),
    "cut": completions.cut,
    "no end": events(chunk("half")),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING.keys())
def test_what_passes_is_tried_again(fault: Say) -> None:
    with engine_on(fault, fault, saying("Leaf")) as (engine, app):
        assert read(engine).text == "Leaf"

    assert len(app.requests) == 3


def test_a_server_that_names_a_time_is_left_alone_until_then() -> None:
    begun = time.monotonic()
    with engine_on(status(429, retry_after="1"), saying("Leaf")) as (engine, _):
        read(engine)

    assert time.monotonic() - begun >= 1


def test_a_time_that_is_none_or_too_long_is_not_waited_for() -> None:
    assert calls.seconds_until_retry("soon") is None
    assert calls.seconds_until_retry("Wed, 21 Oct 2015 07:28:00 GMT") < 0  # type: ignore[operator]
    assert calls.pause_seconds(1, 1e9) == calls.LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize("code", [429, 503])
def test_a_server_that_stays_full_is_no_fault_of_the_page(code: int) -> None:
    with engine_on(status(code), tries=3) as (engine, app):
        error = failed(engine)

    assert isinstance(error, EngineUnavailable)
    assert not error.blames
    assert len(app.requests) == 3


def test_a_server_that_is_away_is_no_fault_of_the_page() -> None:
    with ports.chosen(1) as [port], engine_at(port, tries=2) as engine:
        error = failed(engine)

    assert isinstance(error, EngineUnavailable)
    assert not error.blames


@pytest.mark.parametrize("fault", FAILING.values(), ids=FAILING.keys())
def test_a_server_that_fails_on_a_page_every_time_counts_as_its_failure(fault: Say) -> None:
    with engine_on(fault, tries=2) as (engine, app):
        error = failed(engine)

    assert isinstance(error, InternalError)
    assert error.blames
    assert len(app.requests) == 2


# What does not pass


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_page_that_the_server_does_not_take_is_not_sent_twice(code: int) -> None:
    with engine_on(status(code)) as (engine, app):
        error = failed(engine)

    assert isinstance(error, PageUnreadable)
    assert f"HTTP {code}" in error.detail
    assert len(app.requests) == 1


@pytest.mark.parametrize("code", [301, 401, 403, 404])
def test_a_server_that_takes_no_page_ends_the_engine_and_blames_none(code: int) -> None:
    suspects: list[tuple[int, ...]] = []
    with engine_on(status(code, location="http://127.0.0.1:1/")) as (engine, app):
        engine.submit(request())
        with pytest.raises(ServerRefuses, match=f"HTTP {code}"):
            while True:
                suspects += [e.ids for e in engine.step() if isinstance(e, Working)]

    assert len(app.requests) == 1


NONSENSE = {
    "no JSON": events("{", "[DONE]"),
    "a number": events(7),
    "no choices": events({"object": "chat.completion.chunk"}),
    "content of a wrong type": events({"choices": [{"delta": {"content": 7}}]}),
    "choices of a wrong type": events({"choices": "all"}),
    "a probability that is none": events(chunk("x", logprob="sure")),  # type: ignore[arg-type]
    "a probability without end": events(
        '{"choices": [{"logprobs": {"content": [{"token": "x", "logprob": NaN}]}}]}'
    ),
    "counts below nothing": events(chunk("x"), usage(-1, 1)),
    "an error in the stream": events({"error": {"message": "boom", "code": 500}}),
    "deep nesting": events('{"choices": ' + "[" * 100_000),
    "HTML": whole("<html>"),
    "compressed, unasked": whole("{}", content_encoding="gzip"),
}


@pytest.mark.parametrize("said", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_an_error_of_the_page_and_not_tried_again(said: Say) -> None:
    with engine_on(said) as (engine, app):
        error = failed(engine)

    assert isinstance(error, InternalError)
    assert len(app.requests) == 1


@pytest.mark.parametrize("said", [completions.endless, completions.one_line], ids=["words", "line"])
def test_an_answer_without_end_is_cut_off_and_its_request_closed(said: Say) -> None:
    with engine_on(said) as (engine, app):
        error = failed(engine)
        until(lambda: app.closed == 1, engine)

    assert isinstance(error, PageTooLong)


def test_a_server_that_says_nothing_is_not_waited_for_for_ever() -> None:
    with engine_on(completions.silent, silence_seconds=0.3) as (engine, app):
        error = failed(engine)
        until(lambda: app.closed == 1, engine)

    assert isinstance(error, InternalError)


def test_an_image_that_is_none_is_not_sent() -> None:
    with engine_on(saying("x")) as (engine, app):
        [event] = ending_of(engine, request(image=b"no image"))

    assert isinstance(event, Failed)
    assert event.code == PageUnreadable.code
    assert app.requests == []


# Cancelling


def test_a_page_that_nobody_wants_any_more_has_its_request_closed_and_is_not_named() -> None:
    with engine_on(completions.silent, saying("Leaf")) as (engine, app):
        engine.submit(request(1))
        until(lambda: len(app.requests) == 1, engine)
        engine.cancel(1)
        until(lambda: app.closed == 1, engine)
        said = ending_of(engine, request(2))

    assert [type(event) for event in said] == [Done]
    assert isinstance(said[0], Done)
    assert said[0].id == 2


def test_an_answer_that_has_come_is_not_taken_for_that_to_a_later_page_of_its_id() -> None:
    with engine_on(saying("old", pause=0.2), saying("new")) as (engine, app):
        engine.submit(request(0))
        list(engine.step())
        while not app.requests or app.at_once:
            time.sleep(0.01)
        time.sleep(0.2)  # it lies there, and nobody has looked
        engine.cancel(0)
        page = read(engine, page_id=0)

    assert page.text == "new"


# In a process of its own


def test_the_engine_needs_no_torch() -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'tokenizers', 'transformers', 'numpy', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "import worker.engine.remote.engine"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_worker_with_the_engine_reads_through_the_server() -> None:
    with served(Completions(saying(golden.SENTENCE), saying(*TITLE, pause=0.03))) as port:
        given = {"OCTAVO_REMOTE_URL": f"http://127.0.0.1:{port}/v1", "OCTAVO_REMOTE_MODEL": "ocr"}
        with patch.dict(os.environ, given), running("remote") as host:
            reading = host.submit(PAGE, task=Task.MARKDOWN)
            reading.glance()
            page = reading.result(10)

    assert page.markdown == "# Leaf"
    assert reading.glance() == "\n# Leaf"
    assert host.device == {"device": "remote", "server": f"127.0.0.1:{port}"}


def test_the_servers_key_is_known_to_no_other_engine() -> None:
    given = {"OCTAVO_REMOTE_API_KEY": "sesame", "OCTAVO_SECRET_KEY": "mine"}

    assert "OCTAVO_REMOTE_API_KEY" in environment(given, "remote")
    assert "OCTAVO_REMOTE_API_KEY" not in environment(given, "paddle")
    assert "OCTAVO_SECRET_KEY" not in environment(given, "remote")


def test_a_server_that_reads_wrong_keeps_the_engine_from_starting() -> None:
    with served(Completions(saying("something else"))) as port:
        given = {"OCTAVO_REMOTE_URL": f"http://127.0.0.1:{port}/v1"}
        with (
            patch.dict(os.environ, given),
            pytest.raises(EngineUnavailable, match="reads the golden page as 'something else'"),
            running("remote"),
        ):
            pass


def test_settings_that_are_wrong_are_named_and_never_shown() -> None:
    given = {"OCTAVO_REMOTE_URL": "ftp://sesame"}
    with (
        patch.dict(os.environ, given),
        pytest.raises(EngineUnavailable, match="OCTAVO_REMOTE_URL") as raised,
        running("remote"),
    ):
        pass

    assert "sesame" not in str(raised.value)
