"""Whether there is anything on a page: an empty text is right for an empty page, and for no other."""

from __future__ import annotations

import io
from itertools import accumulate

from PIL import Image

CONTRAST = 48  # of 255, by which ink differs from what most of the page looks like
LEAST_SHARE = 2e-5  # of the pixels; a page number alone has more, a speck of dust has less
LOOKED_AT_PIXELS = (512, 512)


def has_ink(image: bytes) -> bool:
    """Whether a page image, a JPEG or PNG that an engine could decode, shows anything."""
    with Image.open(io.BytesIO(image), formats=("JPEG", "PNG")) as page:
        page.draft("L", LOOKED_AT_PIXELS)
        counts = page.convert("L").histogram()
    total = sum(counts)
    median = next(level for level, sofar in enumerate(accumulate(counts)) if 2 * sofar >= total)
    alike = counts[max(0, median - CONTRAST) : median + CONTRAST + 1]
    return total - sum(alike) >= LEAST_SHARE * total
