"""What scanners and fax machines do to a page. Grey images in, grey or black-and-white ones out.

Chance comes from a generator with a seed, so that the same page gives the same image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageChops, ImageFilter

if TYPE_CHECKING:
    from random import Random

PAPER = 255


def turned(page: Image.Image, degrees: float) -> Image.Image:
    """The page lying askew on the glass, clockwise; the corners are white."""
    return page.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=PAPER)


def blurred(page: Image.Image, pixels: float) -> Image.Image:
    """The page out of focus, by a Gaussian of that radius."""
    return page.filter(ImageFilter.GaussianBlur(pixels))


def noisy(page: Image.Image, share: float, chance: Random) -> Image.Image:
    """The page through a sensor's noise, which makes up `share` of each pixel."""
    noise = Image.frombytes("L", page.size, chance.randbytes(page.width * page.height))
    return Image.blend(page, noise, share)


def faxed(page: Image.Image, specks: float, chance: Random) -> Image.Image:
    """The page in black and white only, with a share of `specks` of its pixels inverted."""
    black_and_white = page.point(lambda value: PAPER if value > PAPER // 2 else 0).convert("1")
    marks = Image.new("1", page.size)
    for _ in range(int(specks * page.width * page.height)):
        marks.putpixel((chance.randrange(page.width), chance.randrange(page.height)), 1)
    return ImageChops.logical_xor(black_and_white, marks)
