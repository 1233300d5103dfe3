"""The engines that read on a CPU, in their own processes, on pages drawn here."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from shared.document import BlockKind, Recognition
from shared.errors import PageUnreadable
from shared.options import Task
from tests.faults import page, running
from worker.engine.host import EngineHost
from worker.engine.images import Rotation
from worker.engine.line_engine import Attempt, block, next_rotation
from worker.engine.lines import Line

SENTENCE = "The quick brown fox jumps over the lazy dog while it rains"
SIZE = (1000, 400)
UPRIGHT = Line("upright text", 0.98, 0, 0, 200, 30)
ON_ITS_HEAD = Line("1xə} umop", 0.6, 0, 0, 200, 30)
SIDEWAYS = Line("sideways", 0.98, 0, 0, 30, 200)
BLURRED = Line("blurred te", 0.75, 0, 0, 200, 30)


@pytest.fixture(scope="module")
def paddle() -> Iterator[EngineHost]:
    with running("paddle") as host:
        yield host


@pytest.fixture(scope="module")
def rapid() -> Iterator[EngineHost]:
    with running("rapid") as host:
        yield host


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def read(host: EngineHost, image: Image.Image) -> Recognition:
    return host.submit(encoded(image, "PNG"), task=Task.MARKDOWN).result(30)


def words(recognition: Recognition) -> str:
    return " ".join(recognition.text.split())


def test_paddle_reads_a_sentence(paddle: EngineHost) -> None:
    recognition = read(paddle, page(text=SENTENCE, size=SIZE))

    assert words(recognition) == SENTENCE
    assert recognition.rotation == 0
    assert recognition.confidence is not None and recognition.confidence > 0.9
    assert recognition.confidence_min is not None
    assert 0 < recognition.confidence_min <= recognition.confidence
    assert recognition.usage.engine_seconds > 0
    assert recognition.usage.output_tokens is None


def test_paddle_gives_each_line_with_its_box(paddle: EngineHost) -> None:
    recognition = read(paddle, page(text=SENTENCE, size=(520, 300)))

    assert len(recognition.blocks) > 1
    assert [b.text for b in recognition.blocks] == recognition.text.split("\n")
    for line in recognition.blocks:
        assert line.kind is BlockKind.LINE
        assert line.box is not None
        assert 30 < line.box.x0 < 70 and line.box.x1 <= 520 and line.box.y1 - line.box.y0 < 50


@pytest.mark.parametrize(
    ("turned", "rotation"),
    [
        (Image.Transpose.ROTATE_90, 90),
        (Image.Transpose.ROTATE_180, 180),
        (Image.Transpose.ROTATE_270, 270),
    ],
)
def test_paddle_reads_a_turned_page(
    paddle: EngineHost, turned: Image.Transpose, rotation: Rotation
) -> None:
    upright = page(text=SENTENCE + ". " + SENTENCE, size=SIZE)

    recognition = read(paddle, upright.transpose(turned))

    assert words(recognition) == words(read(paddle, upright))
    assert recognition.rotation == rotation


def test_boxes_of_a_turned_page_are_pixels_of_the_page_as_given(paddle: EngineHost) -> None:
    upright = page(text=SENTENCE, size=SIZE)  # its ink stands in the upper left
    given = upright.transpose(Image.Transpose.ROTATE_180)

    [line] = read(paddle, given).blocks

    assert line.box is not None
    ink = given.convert("L").point(lambda v: 255 * (v < 128)).getbbox()
    assert ink is not None
    found = (line.box.x0, line.box.y0, line.box.x1, line.box.y1)
    assert all(abs(a - b) < 15 for a, b in zip(found, ink, strict=True))


@pytest.mark.parametrize("colour", ["white", "black"])
def test_paddle_reads_nothing_on_a_blank_page(paddle: EngineHost, colour: str) -> None:
    recognition = read(paddle, Image.new("RGB", SIZE, colour))

    assert recognition.text == recognition.markdown == ""
    assert recognition.blocks == []
    assert recognition.confidence is None and recognition.confidence_min is None
    assert recognition.rotation == 0


@pytest.mark.parametrize("mode", ["L", "1", "P"])
def test_paddle_reads_every_kind_of_page_that_the_renderer_makes(
    paddle: EngineHost, mode: str
) -> None:
    assert words(read(paddle, page(text=SENTENCE, size=SIZE).convert(mode))) == SENTENCE


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_page_is_unreadable_and_not_half_read(
    paddle: EngineHost, kind: str, kept: float
) -> None:
    whole = encoded(page(text=SENTENCE, size=SIZE), kind)

    with pytest.raises(PageUnreadable):
        paddle.submit(whole[: int(kept * len(whole))], task=Task.TEXT).result(10)


def test_paddle_takes_no_file_of_another_kind(paddle: EngineHost) -> None:
    disguised = encoded(page(text=SENTENCE, size=SIZE), "BMP") + b"\xff\xd9"

    with pytest.raises(PageUnreadable):
        paddle.submit(disguised, task=Task.TEXT).result(10)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_paddle_reads_the_jpeg_of_a_page_as_it_reads_its_pixels(
    paddle: EngineHost, mode: str
) -> None:
    jpeg = encoded(page(text=SENTENCE, size=SIZE).convert(mode), "JPEG")
    pixels = Image.open(io.BytesIO(jpeg))

    found = paddle.submit(jpeg, task=Task.TEXT).result(10)

    assert words(found) == words(read(paddle, pixels)) == SENTENCE


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (16, 1600), (1600, 16)])
def test_paddle_takes_pages_of_odd_sizes(paddle: EngineHost, size: tuple[int, int]) -> None:
    assert read(paddle, Image.new("RGB", size, "white")).text == ""


def test_rapid_reads_a_sentence_and_a_blank_page(rapid: EngineHost) -> None:
    recognition = read(rapid, page(text=SENTENCE, size=SIZE))

    assert words(recognition) == SENTENCE
    assert recognition.engine == "rapid"
    assert recognition.blocks[0].box is not None
    assert read(rapid, Image.new("RGB", SIZE, "white")).text == ""


def test_both_hold_one_page_more_than_they_read(paddle: EngineHost) -> None:
    assert paddle.slots == 2


# Rotation, without an engine


def attempts(*lines: tuple[Rotation, Line]) -> list[Attempt]:
    return [Attempt(rotation, [line]) for rotation, line in lines]


def test_an_upright_page_is_read_once() -> None:
    assert next_rotation([]) == 0
    assert next_rotation(attempts((0, UPRIGHT))) is None
    assert next_rotation([Attempt(0, [])]) is None


def test_a_page_on_its_head_is_turned_around_first() -> None:
    assert next_rotation(attempts((0, ON_ITS_HEAD))) == 180
    assert next_rotation(attempts((0, ON_ITS_HEAD), (180, UPRIGHT))) is None


def test_a_page_that_reads_badly_is_tried_in_all_ways_and_then_taken_as_it_is() -> None:
    tried = attempts((0, BLURRED), (180, ON_ITS_HEAD), (90, ON_ITS_HEAD))

    assert next_rotation(tried) == 270
    assert next_rotation([*tried, Attempt(270, [ON_ITS_HEAD])]) is None
    assert max(tried, key=lambda attempt: attempt.worth).rotation == 0


def test_lines_that_run_down_the_page_tell_the_side_it_lies_on() -> None:
    badly_read = Line(SIDEWAYS.text, 0.6, 0, 0, 30, 200)

    assert next_rotation(attempts((0, SIDEWAYS))) == 270
    assert next_rotation(attempts((0, badly_read))) == 90


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_a_box_is_mapped_back_to_the_page_as_given(rotation: Rotation) -> None:
    given = Image.new("L", (60, 40))
    given.paste(255, (10, 5, 30, 12))
    turned = given.rotate(-rotation, expand=True)  # clockwise
    found = turned.getbbox()
    assert found is not None

    box = block(Line("x", 1, *found), rotation, given.size).box

    assert box is not None
    assert (box.x0, box.y0, box.x1, box.y1) == (10, 5, 30, 12)


def test_a_box_beyond_the_page_is_cut_to_it() -> None:
    box = block(Line("x", 1, -5, -5, 700, 500), 0, (60, 40)).box

    assert box is not None
    assert (box.x0, box.y0, box.x1, box.y1) == (0, 0, 60, 40)
