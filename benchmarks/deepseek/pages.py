"""The pages that are read, the same for whoever reads them.

Coarse noise, so that no page is like another; sizes, modes and lengths of the outputs are drawn
from a seed. Random weights never end a page by themselves: its length is its limit.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from worker.engine.deepseek.config import Version

Size = tuple[int, int]

A4, SQUARE, LARGE_SQUARE = (1240, 1754), (1300, 1300), (1400, 1400)

# Of 20 pages: how many are of that mode and size.
_MIX: dict[Version, list[tuple[int, str, Size]]] = {
    1: [
        (10, "gundam", A4),
        (3, "gundam", SQUARE),
        (2, "gundam", LARGE_SQUARE),
        (3, "base", A4),
        (1, "small", A4),
        (1, "tiny", A4),
    ],
    2: [(13, "gundam", A4), (4, "gundam", SQUARE), (3, "base", A4)],
}
MU, SIGMA = 6.7, 0.6  # of the logarithm of a length
SHORTEST, LONGEST = 32, 2048


@dataclass(frozen=True)
class Page:
    """A page and how much is to be put out of it."""

    image: bytes
    mode: str
    output_tokens: int


def mixed(version: Version, count: int, shrink: int = 1) -> list[Page]:
    """A set with pages of all modes; lengths are divided by `shrink`."""
    dice = random.Random(version)
    kinds = [(mode, size) for weight, mode, size in _MIX[version] for _ in range(weight)]
    return [
        Page(drawn(number, size), mode, length(dice) // shrink)
        for number, (mode, size) in enumerate(kinds[at * 7 % len(kinds)] for at in range(count))
    ]


def length(dice: random.Random) -> int:
    """Tokens of a page: the log-normal law of real ones, cut off at both ends."""
    return max(SHORTEST, min(int(dice.lognormvariate(MU, SIGMA)), LONGEST))


def alike(mode: str, count: int, output_tokens: int) -> list[Page]:
    """A4 pages of one mode and length."""
    return [Page(drawn(number, A4), mode, output_tokens) for number in range(count)]


def drawn(seed: int, size: Size) -> bytes:
    """A page of noise as JPEG."""
    dice = np.random.default_rng(seed)
    coarse = dice.integers(0, 256, (size[1] // 8, size[0] // 8, 3), dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(encoded, "JPEG", quality=92)
    return encoded.getvalue()
