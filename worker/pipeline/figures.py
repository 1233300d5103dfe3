"""The figures of a page: what its blocks call an image, cut out of the page's own image.

An engine says where they stand, and is not trusted: a box is cut to the page, what is nearly empty
or too much is left out, and what is left out is referred to by nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from shared import references
from shared.document import Block, Box, Recognition

MOST = 50
"""Figures that one page may have."""

MOST_PAGES = 2.0
"""What the figures of a page may cover together, in pages: boxes may lie on each other."""

SMALLEST_SIDE = 8
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Figure:
    """A picture in a page; `number` is its place among the page's images, from 1."""

    number: int
    jpeg: bytes


def cut(recognition: Recognition, page: bytes, page_no: int) -> tuple[Recognition, list[Figure]]:
    """The figures of a page, and the recognition with references to these and to no others.

    `page` is its image, a JPEG or PNG.
    """
    with Image.open(io.BytesIO(page), formats=("JPEG", "PNG")) as image:
        kept = dict(_within(dict(references.images(recognition)), image.size))
        figures = [Figure(number, _jpeg(image, box)) for number, box in kept.items()]
    return references.only(recognition, page_no, kept), figures


def _within(places: dict[int, Block], size: tuple[int, int]) -> Iterator[tuple[int, Box]]:
    """What of the boxes lies on the page, as far as there are not too many and not too much."""
    width, height = size
    room = MOST_PAGES * width * height
    for number, block in list(places.items())[:MOST]:
        if block.box is None:
            continue
        x1, y1 = min(block.box.x1, width), min(block.box.y1, height)
        wide, high = x1 - block.box.x0, y1 - block.box.y0
        if min(wide, high) >= SMALLEST_SIDE and wide * high <= room:
            room -= wide * high
            yield number, Box(x0=block.box.x0, y0=block.box.y0, x1=x1, y1=y1)


def _jpeg(image: Image.Image, box: Box) -> bytes:
    encoded = io.BytesIO()
    figure = image.crop((box.x0, box.y0, box.x1, box.y1)).convert("RGB")
    figure.save(encoded, "JPEG", quality=JPEG_QUALITY)
    return encoded.getvalue()
