"""`auto`: which mode a page is read in, by the height and the number of its letters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pypdfium2
import pytest
from PIL import Image, ImageDraw, ImageFont, ImageSequence

from shared import abilities
from worker.engine.deepseek import choice, views
from worker.engine.deepseek.choice import Type
from worker.engine.deepseek.config import NAMES, Version
from worker.engine.deepseek.views import MODES

SAMPLES = Path(__file__).parents[2] / "deploy/samples"
A4 = (1240, 1754)
VERSIONS: tuple[Version, ...] = (1, 2)


def sample(name: str, page: int = 0) -> Image.Image:
    if name.endswith(".pdf"):
        drawn: Image.Image = (
            pypdfium2.PdfDocument(SAMPLES / name)[page].render(scale=150 / 72).to_pil()
        )
        return drawn
    with Image.open(SAMPLES / name) as opened:
        return ImageSequence.all_frames(opened)[page].convert("RGB")


def typed(pixels: int, lines: int = 20) -> Image.Image:
    """An A4 page of type of that size."""
    page = Image.new("RGB", A4, "white")
    font = ImageFont.load_default(pixels)
    for line in range(lines):
        words = "One printed sheet, folded into eight leaves " * 4
        ImageDraw.Draw(page).text((60, 60 + 1.6 * pixels * line), words, fill="black", font=font)
    return page


@pytest.mark.parametrize("version", VERSIONS)
def test_the_gateway_knows_the_modes_of_both_versions(version: Version) -> None:
    assert abilities.of(NAMES[version]).modes == tuple(MODES[version])


@pytest.mark.parametrize(
    ("x_pixels", "letters", "mode"),
    [
        (20, 500, "tiny"),
        (14, 500, "small"),
        (20, 2_500, "base"),  # legible in tiny, but too many for its 64 tokens
        (10, 1_500, "base"),
        (8, 3_000, "large"),
        (6, 6_000, "gundam"),
        (3, 9_000, "gundam"),  # legible in none
    ],
)
def test_the_mode_of_fewest_tokens_is_taken_that_keeps_letters_legible(
    x_pixels: float, letters: float, mode: str
) -> None:
    assert choice.chosen(MODES[1], Type(x_pixels, letters), A4) == mode


def test_version_two_has_a_choice_of_two() -> None:
    assert choice.chosen(MODES[2], Type(20, 500), A4) == "base"
    assert choice.chosen(MODES[2], Type(6, 500), A4) == "gundam"


@pytest.mark.parametrize(
    ("name", "page", "first", "second"),
    [
        ("octavo.pdf", 0, "base", "base"),
        ("octavo.pdf", 1, "base", "base"),  # ideographs, twice as high as an x
        ("octavo.pdf", 2, "base", "base"),
        ("scan.jpg", 0, "base", "base"),
        ("rotated.png", 0, "base", "base"),
        ("receipt.png", 0, "tiny", "base"),
        ("fax.tiff", 0, "base", "base"),
        ("fax.tiff", 1, "large", "gundam"),
    ],
)
def test_what_docs_say_of_the_samples(name: str, page: int, first: str, second: str) -> None:
    image = sample(name, page)

    assert choice.among(MODES[1], image) == MODES[1][first]
    assert choice.among(MODES[2], image) == MODES[2][second]


@pytest.mark.parametrize(
    ("name", "letters"), [("octavo.pdf", 1546), ("scan.jpg", 1286), ("receipt.png", 246)]
)
def test_letters_are_counted_to_within_a_third(name: str, letters: int) -> None:
    found = choice.type_of(sample(name))

    assert found is not None
    assert abs(found.letters - letters) < letters / 3


def test_smaller_type_needs_a_mode_of_more_tokens() -> None:
    taken = [choice.among(MODES[1], typed(pixels)) for pixels in (60, 24, 12)]
    tokens = [views.tokens(1, mode, views.grid(*A4, mode)) for mode in taken]

    assert tokens == sorted(set(tokens))


def test_a_page_on_its_side_is_measured_like_one_upright() -> None:
    page = sample("scan.jpg")
    turned = page.transpose(Image.Transpose.ROTATE_90)

    assert choice.among(MODES[1], turned) == choice.among(MODES[1], page)


def test_a_page_without_text_has_the_whole_page_and_no_tiles() -> None:
    dice = np.random.default_rng(1)
    picture = Image.fromarray(dice.integers(0, 256, (7, 5, 3), dtype=np.uint8)).resize(A4)

    for page in (Image.new("RGB", A4, "white"), picture, Image.new("RGB", (16, 1600), "black")):
        assert choice.among(MODES[1], page) == MODES[1]["base"]


def test_one_mode_is_no_choice_and_costs_nothing() -> None:
    tiny = {"tiny": MODES[1]["tiny"]}

    assert choice.among(tiny, None) == MODES[1]["tiny"]  # type: ignore[arg-type]
