"""How many tokens a page takes, by its size and mode, as published."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from worker.engine.deepseek import views
from worker.engine.deepseek.config import Version
from worker.engine.deepseek.views import MODES, Grid


@pytest.mark.parametrize(
    ("version", "mode", "grid", "tokens"),
    [
        (1, "tiny", (1, 1), 73),
        (1, "small", (1, 1), 111),
        (1, "base", (1, 1), 273),
        (1, "large", (1, 1), 421),
        (1, "gundam", (1, 1), 273),
        (1, "gundam", (1, 2), 493),
        (1, "gundam", (2, 1), 483),
        (1, "gundam", (2, 2), 693),
        (1, "gundam", (2, 3), 903),
        (1, "gundam", (3, 2), 893),
        (1, "gundam", (4, 2), 1093),
        (1, "gundam", (3, 3), 1203),
        (2, "base", (1, 1), 257),
        (2, "gundam", (1, 1), 257),
        (2, "gundam", (2, 1), 545),
        (2, "gundam", (1, 3), 689),
        (2, "gundam", (2, 2), 833),
        (2, "gundam", (1, 5), 977),
        (2, "gundam", (2, 3), 1121),
    ],
)
def test_a_page_takes_the_published_number_of_tokens(
    version: Version, mode: str, grid: Grid, tokens: int
) -> None:
    assert views.tokens(version, MODES[version][mode], grid) == tokens


@pytest.mark.parametrize(
    ("version", "size", "grid"),
    [
        (1, (1240, 1754), (2, 3)),  # A4
        (1, (1700, 2200), (2, 3)),  # Letter
        (1, (1280, 720), (2, 1)),
        (1, (1920, 1080), (4, 2)),
        (1, (2000, 900), (4, 2)),
        (1, (640, 640), (1, 1)),
        (1, (1357, 1357), (2, 2)),
        (1, (1358, 1358), (3, 3)),
        (1, (16, 1600), (1, 9)),
        (2, (1240, 1754), (2, 3)),
        (2, (1920, 1080), (2, 1)),
        (2, (1500, 1500), (2, 2)),
        (2, (768, 768), (1, 1)),
    ],
)
def test_a_page_is_cut_by_its_shape(version: Version, size: tuple[int, int], grid: Grid) -> None:
    assert views.grid(*size, MODES[version]["gundam"]) == grid


def test_a_mode_without_tiles_cuts_nothing() -> None:
    for mode in ("tiny", "small", "base", "large"):
        page = views.of(Image.new("RGB", (1000, 3000)), MODES[1][mode])

        assert (page.grid, page.tiles) == ((1, 1), ())
        assert page.whole.shape == (MODES[1][mode].side,) * 2 + (3,)


def test_small_modes_squash_a_page_and_large_ones_pad_it_with_grey() -> None:
    page = Image.new("RGB", (500, 1000), "black")

    assert not views.of(page, MODES[1]["small"]).whole.any()
    padded = views.of(page, MODES[1]["base"]).whole
    assert (padded[:, 0] == 127).all() and (padded[:, 512] == 0).all()


def test_tiles_lie_row_by_row_and_stretch_the_page() -> None:
    page = Image.new("RGB", (1240, 1754), "black")
    page.paste("white", (620, 0, 1240, 585))  # the second of six

    cut = views.of(page, MODES[1]["gundam"])

    assert cut.grid == (2, 3)
    assert [round(float(tile.mean()) / 255) for tile in cut.tiles] == [0, 1, 0, 0, 0, 0]


def test_a_page_is_turned_as_its_camera_says() -> None:
    page = Image.new("RGB", (100, 200), "black")
    page.getexif()[0x0112] = 6
    taken = io.BytesIO()
    page.save(taken, "JPEG", exif=page.getexif())

    assert views.of(Image.open(taken), MODES[1]["base"]).size == (200, 100)


@pytest.mark.parametrize("kind", ["1", "L", "P", "LA", "RGBA", "CMYK"])
def test_every_kind_of_page_becomes_three_colours(kind: str) -> None:
    cut = views.of(Image.new(kind, (700, 300)), MODES[1]["gundam"])

    assert cut.whole.dtype == np.uint8 and cut.whole.shape == (1024, 1024, 3)
    assert {tile.shape for tile in cut.tiles} == {(640, 640, 3)}
