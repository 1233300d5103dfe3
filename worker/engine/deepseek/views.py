"""A page as the model sees it: one view of the whole, and tiles of it where that is not enough.

Pixels stay bytes until they are on the device. All resizing is Pillow's bicubic, as in training;
another filter, or the aspect ratio kept in tiles, costs accuracy that no test of ours would show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from worker.engine.deepseek.config import Version

Pixels = NDArray[np.uint8]
Grid = tuple[int, int]

PATCH_PIXELS = 64  # of a view's side, that become one token
GREY = (127, 127, 127)
SQUASHED_UP_TO = 640  # the small modes without tiles ignore the aspect ratio


@dataclass(frozen=True)
class Mode:
    """How a page is cut. Sides are pixels and multiples of 64; without tiles, both are 0."""

    side: int
    tile: int = 0
    most_tiles: int = 0


MODES: dict[Version, dict[str, Mode]] = {
    1: {
        "tiny": Mode(512),
        "small": Mode(640),
        "base": Mode(1024),
        "large": Mode(1280),
        "gundam": Mode(1024, 640, 9),
    },
    2: {"base": Mode(1024), "gundam": Mode(1024, 768, 6)},
}
DEFAULT_MODE = "gundam"


def name_of(mode: Mode, modes: Mapping[str, Mode]) -> str:
    """What a mode is called among others."""
    return next(name for name, one in modes.items() if one == mode)


@dataclass(frozen=True)
class Views:
    """A page cut up: the whole (side, side, 3), the tiles row by row, and the page's own size."""

    whole: Pixels
    tiles: tuple[Pixels, ...]
    grid: Grid  # columns and rows of tiles; (1, 1) means none
    mode: Mode
    size: tuple[int, int]  # width and height of the page in pixels


def grid(width: int, height: int, mode: Mode) -> Grid:
    """Columns and rows whose ratio is nearest to the page's; (1, 1) where it needs no tiles.

    Of equally near ones the larger is taken if the page has the pixels to half fill it.
    """
    best, gap = (1, 1), float("inf")
    if mode.tile == 0 or max(width, height) <= mode.tile:
        return best
    for columns, rows in _grids(mode.most_tiles):
        distance = abs(width / height - columns / rows)
        fills = width * height > 0.5 * mode.tile**2 * columns * rows
        if distance < gap or (distance == gap and fills):
            best, gap = (columns, rows), distance
    return best


def _grids(most: int) -> list[Grid]:
    sides = range(1, most + 1)
    every = [(columns, rows) for columns in sides for rows in sides]
    fitting = [found for found in every if 1 < found[0] * found[1] <= most]
    return sorted(fitting, key=lambda found: found[0] * found[1])


def tokens(version: Version, mode: Mode, grid: Grid) -> int:
    """How many places in the prompt the features of such a page take."""
    columns, rows = grid
    across, inside = mode.side // PATCH_PIXELS, mode.tile // PATCH_PIXELS
    tiles = columns * rows if columns * rows > 1 else 0
    if version == 1:  # each row of features ends with a newline
        sheet = inside * rows * (inside * columns + 1) if tiles else 0
        return across * (across + 1) + 1 + sheet
    return across**2 + 1 + tiles * inside**2


def of(image: Image.Image, mode: Mode) -> Views:
    """The views of a page that may still lie on its side by its EXIF orientation."""
    page = ImageOps.exif_transpose(image).convert("RGB")
    chosen = grid(*page.size, mode)
    tiles = () if chosen == (1, 1) else tuple(_tiles(page, mode.tile, chosen))
    return Views(_whole(page, mode), tiles, chosen, mode, page.size)


def _whole(page: Image.Image, mode: Mode) -> Pixels:
    size = (mode.side, mode.side)
    if mode.tile == 0 and mode.side <= SQUASHED_UP_TO:
        return np.asarray(page.resize(size))
    return np.asarray(ImageOps.pad(page, size, color=GREY))


def _tiles(page: Image.Image, side: int, grid: Grid) -> Iterator[NDArray[Any]]:
    columns, rows = grid
    sheet = np.asarray(page.resize((columns * side, rows * side)))
    for top in range(0, rows * side, side):
        for left in range(0, columns * side, side):
            yield sheet[top : top + side, left : left + side]
