"""Page images as an engine takes them.

They come from our own renderer: upright by EXIF, opaque, 8 bits a channel, of a size that was
checked. What does not open all the same ends its page and not the engine.
"""

from __future__ import annotations

import io

from PIL import Image

from shared.errors import PageUnreadable


def opened(image: bytes) -> Image.Image:
    """The page with its size known and its pixels not decoded. Raises PageUnreadable."""
    try:
        return Image.open(io.BytesIO(image), formats=("JPEG", "PNG"))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise PageUnreadable("The page image is no JPEG or PNG.") from error


def decoded(image: bytes) -> Image.Image:
    """The page as RGB pixels. Raises PageUnreadable, also where only a part can be decoded."""
    page = opened(image)
    try:
        return page.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise PageUnreadable("The page image is broken.") from error
