"""Views and tiles, to the bit, against transformers' own processor of Pillow images.

The processor is version 2's; with tiles of 640 and at most 9 it is version 1's too.
"""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest
from PIL import Image
from transformers.models.deepseek_ocr2.image_processing_pil_deepseek_ocr2 import (
    DeepseekOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)

from worker.engine.deepseek import views
from worker.engine.deepseek.config import Version
from worker.engine.deepseek.views import MODES, Mode

SIZES = [
    (620, 877),  # A4 and Letter, upright and across
    (1240, 1754),
    (1754, 1240),
    (1700, 2200),
    (1280, 720),  # screens
    (1920, 1080),
    (640, 640),  # fits one tile of version 1
    (641, 640),
    (768, 768),  # of version 2
    (1000, 1000),  # squares on both sides of 1358, where a larger grid is taken
    (1357, 1357),
    (1358, 1358),
    (300, 200),
    (4000, 400),  # a strip
    (400, 4000),
]


def page(size: tuple[int, int]) -> Image.Image:
    """Coarse noise: edges everywhere, so that any other filter would show."""
    dice = np.random.default_rng(size[0])
    coarse = dice.integers(0, 256, (size[1] // 9 + 1, size[0] // 9 + 1, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST)


def processor(mode: Mode) -> DeepseekOcr2ImageProcessorPil:
    return DeepseekOcr2ImageProcessorPil(tile_size=mode.tile, max_patches=mode.most_tiles)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_tiles_and_view_are_those_of_the_reference_to_the_bit(
    size: tuple[int, int], version: Version
) -> None:
    mode = MODES[version]["gundam"]
    given = processor(mode)(images=[page(size)], return_tensors="np")

    ours = views.of(page(size), mode)

    assert [len(ours.tiles)] == list(given["num_local_patches"])
    assert np.array_equal(as_bytes(given["pixel_values"][0]), ours.whole)
    for theirs, tile in zip(given.get("pixel_values_local", []), ours.tiles, strict=True):
        assert np.array_equal(as_bytes(theirs), tile)


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """What was normalised, as it was before. It must have been whole numbers."""
    scaled = (np.asarray(pixels, dtype=np.float64).transpose(1, 2, 0) + 1) * 127.5
    assert np.abs(scaled - scaled.round()).max() < 1e-3
    return scaled.round().astype(np.uint8)


@pytest.mark.parametrize(("version", "tile", "most"), [(1, 640, 9), (2, 768, 6)])
def test_the_grid_is_that_of_the_reference_on_sizes_of_all_kinds(
    version: Version, tile: int, most: int
) -> None:
    dice = np.random.default_rng(0)
    for width, height in dice.integers(16, 5000, (3000, 2)).tolist():
        if max(width, height) <= tile:
            continue
        found = views.grid(width, height, MODES[version]["gundam"])
        assert found == get_optimal_tiled_canvas((height, width), (tile, tile), 2, most)


def test_padding_that_is_odd_is_rounded_as_the_makers_do() -> None:
    """The one case in which the reference differs, by a pixel: Pillow rounds half to even."""
    size = (600, 500)
    black = views.of(Image.new("RGB", size), MODES[1]["base"]).whole

    rows = np.flatnonzero((black == 0).all(axis=(1, 2)))
    assert (rows[0], len(rows)) == (round((1024 - 853) / 2), 853)


def test_the_reference_is_the_one_that_was_held_against_the_makers_code() -> None:
    assert metadata.version("transformers") == "5.23.0"
