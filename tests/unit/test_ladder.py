"""The ladder's rules: what is a flaw, who reads next, and where it ends."""

from __future__ import annotations

import pytest
from PIL import Image, ImageDraw

from shared import ladder
from shared.document import FinishReason, Flaw, Try
from shared.options import Task
from tests.factory import recognition
from tests.faults import jpeg, page_image
from worker.pipeline.ink import has_ink


def tried(*readings: tuple[str, str | None]) -> list[Try]:
    return [Try(engine=engine, mode=mode, flaw="length") for engine, mode in readings]


@pytest.mark.parametrize(
    ("tries", "others", "following"),
    [
        ([("deepseek-ocr", "base")], [], "deepseek-ocr"),
        ([("deepseek-ocr", "gundam")], [], None),
        ([("deepseek-ocr", "gundam")], ["rapid", "paddle"], "rapid"),
        ([("deepseek-ocr", "base"), ("deepseek-ocr", "gundam")], ["rapid"], "rapid"),
        ([("deepseek-ocr", "gundam"), ("rapid", None)], ["rapid", "paddle"], "paddle"),
        ([("deepseek-ocr", "gundam"), ("rapid", None)], ["rapid"], None),
        ([("paddle", None)], ["paddle"], None),
        ([("paddle", None)], ["deepseek-ocr-2"], "deepseek-ocr-2"),
    ],
)
def test_a_higher_mode_then_other_engines_then_nobody(
    tries: list[tuple[str, str | None]], others: list[str], following: str | None
) -> None:
    assert ladder.next_engine(tried(*tries), Task.MARKDOWN, others) == following


def test_an_engine_that_does_not_know_the_task_is_passed_over() -> None:
    tries = tried(("deepseek-ocr", "gundam"))

    assert ladder.next_engine(tries, Task.DESCRIBE, ["paddle", "remote"]) == "remote"


def test_no_page_is_read_more_than_four_times_whatever_is_configured() -> None:
    others = ["rapid", "paddle", "remote", "deepseek-ocr-2", "fake"]
    tries = tried(("deepseek-ocr", "tiny"))
    while engine := ladder.next_engine(tries, Task.TEXT, others):
        tries += tried((engine, ladder.highest_mode(engine)))

    assert len(tries) == ladder.MOST_READINGS
    assert len({(one.engine, one.mode) for one in tries}) == len(tries)


@pytest.mark.parametrize(
    ("said", "reason", "task", "ink", "flaw"),
    [
        ("said", FinishReason.STOP, Task.TEXT, True, None),
        ("said", FinishReason.LENGTH, Task.TEXT, True, Flaw.LENGTH),
        ("said", FinishReason.REPETITION, Task.DESCRIBE, True, Flaw.REPETITION),
        (" \n", FinishReason.STOP, Task.MARKDOWN, True, Flaw.EMPTY),
        ("", FinishReason.REPETITION, Task.TEXT, True, Flaw.EMPTY),
        ("", FinishReason.STOP, Task.TEXT, False, None),  # an empty page
        ("", FinishReason.STOP, Task.LOCATE, True, None),  # the words are not there
    ],
)
def test_a_flaw_is_a_text_cut_off_going_round_or_missing(
    said: str, reason: FinishReason, task: Task, *, ink: bool, flaw: Flaw | None
) -> None:
    read = recognition(said, finish_reason=reason)

    assert ladder.flaw_of(read, task, has_ink=ink) == flaw


def dotted() -> Image.Image:
    page = Image.new("L", (1240, 1754), 250)
    ImageDraw.Draw(page).point([(100, 100), (800, 900)], fill=0)
    return page


def test_ink_is_told_from_paper() -> None:
    inverted = Image.new("L", (1240, 1754), 0)
    ImageDraw.Draw(inverted).rectangle((100, 100, 180, 120), fill=255)

    assert has_ink(page_image(text="7", size=(1240, 1754)))
    assert has_ink(jpeg(inverted.convert("RGB")))
    assert not has_ink(jpeg(dotted().convert("RGB")))
    assert not has_ink(jpeg(Image.new("RGB", (1240, 1754), "white")))
