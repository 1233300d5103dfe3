"""Figures are cut out of a page by boxes that nobody trusts."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from shared import references
from shared.document import Block, BlockKind, Box, Recognition
from tests.faults import jpeg
from worker.pipeline import figures
from worker.pipeline.figures import Figure

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def page() -> bytes:
    """White, 200 by 100, red from 20 to 60 in both directions, blue on its right edge."""
    image = Image.new("RGB", (200, 100), "white")
    image.paste(RED, (20, 20, 60, 60))
    image.paste(BLUE, (180, 0, 200, 100))
    return jpeg(image)


def image_at(x0: int, y0: int, x1: int, y1: int, **values: Any) -> Block:
    box = Box(x0=x0, y0=y0, x1=x1, y1=y1)
    return Block(**{"kind": BlockKind.IMAGE, "text": "", "box": box, **values})


def read(*blocks: Block, markdown: str = "") -> Recognition:
    images = [block for block in blocks if block.kind is BlockKind.IMAGE]
    references = "\n\n".join(f"![](figures/{number})" for number, _ in enumerate(images, 1))
    return Recognition(
        engine="e", model="m", markdown=markdown or references, text="", blocks=list(blocks)
    )


def colour_of(figure: Figure) -> tuple[int, ...]:
    with Image.open(io.BytesIO(figure.jpeg)) as opened:
        pixel = opened.convert("RGB").getpixel((opened.width // 2, opened.height // 2))
        assert isinstance(pixel, tuple)
        return tuple(255 if value > 127 else 0 for value in pixel)


def size_of(figure: Figure) -> tuple[int, int]:
    with Image.open(io.BytesIO(figure.jpeg)) as opened:
        return opened.size


def test_a_figure_is_what_lies_in_its_box(page: bytes) -> None:
    recognition, [figure] = figures.cut(read(image_at(22, 22, 58, 50)), page, 3)

    assert (size_of(figure), colour_of(figure)) == ((36, 28), RED)
    assert recognition.markdown == "![](pages/3/figures/1)"
    assert [block.figure for block in recognition.blocks] == [1]


def test_a_box_beyond_the_page_is_cut_to_it(page: bytes) -> None:
    _, [figure] = figures.cut(read(image_at(185, 10, 9_999, 90)), page, 1)

    assert (size_of(figure), colour_of(figure)) == ((15, 80), BLUE)


@pytest.mark.parametrize(
    "box",
    [(50, 50, 50, 90), (90, 50, 20, 90), (300, 10, 400, 50), (10, 10, 200, 14), (2**40,) * 4],
    ids=["empty", "reversed", "outside", "a hair", "far away"],
)
def test_what_holds_next_to_nothing_is_left_out_and_referred_to_by_nothing(
    page: bytes, box: tuple[int, int, int, int]
) -> None:
    recognition, cut = figures.cut(read(image_at(*box), image_at(20, 20, 60, 60)), page, 1)

    assert [figure.number for figure in cut] == [2]
    assert [block.figure for block in recognition.blocks] == [None, 2]
    assert recognition.markdown == "![](pages/1/figures/2)"


def test_an_image_without_a_box_is_left_out(page: bytes) -> None:
    recognition, cut = figures.cut(read(image_at(0, 0, 9, 9, box=None)), page, 1)

    assert (recognition.markdown, cut) == ("", [])


def test_a_page_has_a_bounded_number_of_figures(page: bytes) -> None:
    blocks = [image_at(0, 0, 10, 10)] * (figures.MOST + 5)

    recognition, cut = figures.cut(read(*blocks), page, 1)

    assert len(cut) == figures.MOST
    assert recognition.markdown.count("![]") == figures.MOST


def test_figures_that_lie_on_each_other_cover_two_pages_at_most(page: bytes) -> None:
    whole = image_at(0, 0, 200, 100)
    blocks = [whole.model_copy() for _ in range(4)] + [image_at(0, 0, 10, 10)]

    _, cut = figures.cut(read(*blocks), page, 1)

    assert [figure.number for figure in cut] == [1, 2]


def test_an_engine_cannot_say_which_figures_there_are(page: bytes) -> None:
    forged = Block(kind=BlockKind.TEXT, text="![](figures/7)", figure=7)
    recognition = read(forged, markdown="see ![](figures/7), ![](pages/9/figures/1)")

    assert references.are_in(recognition)
    recognition, cut = figures.cut(recognition, page, 1)

    assert cut == []
    assert recognition.blocks[0].figure is None
    assert recognition.markdown == "see , ![](pages/9/figures/1)"


def test_a_page_without_images_has_nothing_to_cut() -> None:
    assert not references.are_in(read(Block(kind=BlockKind.TEXT, text="said")))
