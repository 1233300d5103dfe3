"""`auto`: the mode of fewest tokens in which a page's text should still be legible.

Two things are measured on the page's pixels: how high its smaller letters are (the height of an x),
and about how many there are. Then, from the mode of fewest tokens up, the first one is taken that

- leaves an x of these letters at least `MIN_X_PIXELS` high in its views, and
- has a vision token for every `MOST_TEXT_TOKENS` of text, so that the page is not packed too tight.

Where none does, it is the mode that shrinks the page least; where there is no text to be found,
`base`. Both bounds are guesses on the safe side of what the model's makers published. With weights
that were not trained nobody can measure what a lower mode loses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from worker.engine.deepseek import views
from worker.engine.deepseek.views import Mode

MIN_X_PIXELS = 5.0
MOST_TEXT_TOKENS = 5.0  # for a vision token: half of where the makers still read 97 % right
LETTERS_OF_A_TOKEN = 3.5
WITHOUT_TEXT = "base"

MOST_PIXELS = 4_000_000  # of a page that is looked at; a larger one is shrunk first
STRIP_PIXELS = 80  # wide enough for some letters, so narrow that crooked lines do not blur
SURROUNDINGS_PIXELS = 16
CONTRAST = 32  # of 255, by which ink is darker than what surrounds it
LINE_SHARE = 0.4  # of a strip's inkiest rows, from which on a row belongs to a line of text
LEAST_LINE, MOST_LINE = 5, 0.08  # pixels, and share of the page's height: no rules, no pictures
SMALLER_LETTERS = 0.25  # of the ink stands in letters that are lower than what counts
LETTER_INK = 0.42  # of the square over an x
STROKES_OF_AN_X = 3.3  # high; ideographs, which have more, are taken for smaller letters


@dataclass(frozen=True)
class Type:
    """The type on a page: the height of a small x in pixels, and about how many letters."""

    x_pixels: float
    letters: float


def among(modes: Mapping[str, Mode], page: Image.Image) -> Mode:
    """The mode in which to read a page, of several; where there is one, nothing is looked at."""
    if len(modes) == 1:
        return next(iter(modes.values()))
    return modes[chosen(modes, type_of(page), page.size)]


def chosen(modes: Mapping[str, Mode], found: Type | None, size: tuple[int, int]) -> str:
    """The name of the mode for a page of that type and that size in pixels."""
    if found is None:
        return WITHOUT_TEXT
    cheapest_first = sorted(modes, key=lambda name: _tokens(modes[name], size))
    for name in cheapest_first:
        if _is_legible(found, size, modes[name]):
            return name
    return max(cheapest_first, key=lambda name: _scale(modes[name], size))


def _is_legible(found: Type, size: tuple[int, int], mode: Mode) -> bool:
    text_tokens = found.letters / LETTERS_OF_A_TOKEN
    return found.x_pixels * _scale(
        mode, size
    ) >= MIN_X_PIXELS and text_tokens <= MOST_TEXT_TOKENS * _tokens(mode, size)


def _tokens(mode: Mode, size: tuple[int, int]) -> int:
    """As version 2 counts: the newlines that version 1 adds say nothing of the page."""
    return views.tokens(2, mode, views.grid(*size, mode))


def _scale(mode: Mode, size: tuple[int, int]) -> float:
    """How large a pixel of the page is in the view that shows most."""
    width, height = size
    columns, rows = views.grid(width, height, mode)
    whole = mode.side / max(size)
    return max(whole, min(columns * mode.tile / width, rows * mode.tile / height))


def type_of(page: Image.Image) -> Type | None:
    """What is known of a page's type from its pixels; None where no text is found."""
    shrink = math.ceil(math.sqrt(page.width * page.height / MOST_PIXELS))
    grey = page.convert("L").reduce(shrink)
    around = grey.filter(ImageFilter.BoxBlur(SURROUNDINGS_PIXELS))
    ink = np.asarray(around, np.int16) - np.asarray(grey, np.int16) >= CONTRAST
    upright, lying = _profile(ink), _profile(ink.T)
    heights, inks = _lines(upright if _unevenness(upright) >= _unevenness(lying) else lying)
    if not len(heights):
        return None
    order = np.argsort(heights)
    passed = np.cumsum(inks[order])
    x_pixels = float(heights[order][np.searchsorted(passed, SMALLER_LETTERS * passed[-1])])
    letters = float((inks / (LETTER_INK * heights**2)).sum())
    return Type(min(x_pixels, STROKES_OF_AN_X * _stroke(ink)) * shrink, letters)


def _stroke(ink: NDArray[np.bool_]) -> float:
    """How many pixels of ink stand side by side, in the mean."""
    begins = ink & ~np.pad(ink, ((0, 0), (1, 0)))[:, :-1]
    return float(ink.sum() / max(1, begins.sum()))


def _profile(ink: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How much ink each row of each strip has: (rows, strips)."""
    height, width = ink.shape
    strips = max(1, width // STRIP_PIXELS)
    used = ink[:, : width // strips * strips].reshape(height, strips, -1)
    return used.sum(2, dtype=np.int64)


def _unevenness(profile: NDArray[np.int64]) -> float:
    """Rows change between full and empty where lines of text run along them."""
    return float(profile.std(0).mean() / max(1.0, profile.mean()))


def _lines(profile: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The height of each piece of a line in a strip, and its ink."""
    full = np.percentile(profile, 95, axis=0)
    is_line = (profile >= LINE_SHARE * full) & (profile > 0)
    edges = np.diff(np.pad(is_line, ((1, 1), (0, 0))).astype(np.int8), axis=0).T
    starts, ends = (np.argwhere(edges == step) for step in (1, -1))
    sums = np.pad(profile.cumsum(0), ((1, 0), (0, 0)))
    heights = ends[:, 1] - starts[:, 1]
    inks = sums[ends[:, 1], ends[:, 0]] - sums[starts[:, 1], starts[:, 0]]
    is_text = (heights >= LEAST_LINE) & (heights <= MOST_LINE * profile.shape[0])
    return heights[is_text], inks[is_text]
