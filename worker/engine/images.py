"""Page images as an engine takes them.

They come from our own renderer: upright by EXIF, opaque, 8 bits a channel, of a size that was
checked. What does not open all the same ends its page and not the engine.
"""

from __future__ import annotations

import io
from functools import cached_property
from typing import Literal

from PIL import Image

from shared.errors import PageUnreadable

Rotation = Literal[0, 90, 180, 270]
"""Degrees clockwise."""

_TURNS = {
    90: Image.Transpose.ROTATE_270,  # Pillow turns the other way
    180: Image.Transpose.ROTATE_180,
    270: Image.Transpose.ROTATE_90,
}
_LAST_BYTES = (b"\xff\xd9", b"IEND\xaeB`\x82")
"""Of every whole JPEG, and of every whole PNG."""


class PageImage:
    """A page as a file and as pixels; what an engine does not ask for is not made."""

    def __init__(self, source: bytes | Image.Image) -> None:
        """`source` is a JPEG or PNG, or RGB pixels."""
        self._source = source

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels. Raises PageUnreadable."""
        return opened(self._source).size if isinstance(self._source, bytes) else self._source.size

    @cached_property
    def pixels(self) -> Image.Image:
        """RGB. Raises PageUnreadable."""
        return decoded(self._source) if isinstance(self._source, bytes) else self._source

    @property
    def file(self) -> bytes:
        """A whole JPEG or PNG, or a BMP, which costs next to nothing. Raises PageUnreadable."""
        if isinstance(self._source, bytes):
            return whole(self._source)
        encoded = io.BytesIO()
        self._source.save(encoded, "BMP")
        return encoded.getvalue()

    def turned(self, rotation: Rotation) -> PageImage:
        """The page turned clockwise. Raises PageUnreadable."""
        return PageImage(self.pixels.transpose(_TURNS[rotation])) if rotation else self


def opened(image: bytes) -> Image.Image:
    """The page with its size known and its pixels not decoded. Raises PageUnreadable."""
    try:
        return Image.open(io.BytesIO(image), formats=("JPEG", "PNG"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PageUnreadable("The page image is no JPEG or PNG.") from error


def whole(image: bytes) -> bytes:
    """The page as it came, with nothing missing. Raises PageUnreadable.

    For decoders that take a part of a JPEG for the whole, and find fewer lines.
    """
    opened(image)
    if not image.endswith(_LAST_BYTES):
        raise PageUnreadable("The page image is broken.")
    return image


def decoded(image: bytes) -> Image.Image:
    """The page as RGB pixels. Raises PageUnreadable, also where only a part can be decoded."""
    page = opened(image)
    try:
        return page.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise PageUnreadable("The page image is broken.") from error
