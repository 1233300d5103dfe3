"""Faults that the fake engine can have, and the mark on a page that asks for one.

The mark is three squares side by side in the page's upper left corner: magenta, the fault's colour,
and that colour's opposite. It is told by colours that lie far apart, so it survives JPEG, and by
the first square's size, so it survives scaling. White pages and photographs do not have it.
"""

from __future__ import annotations

from enum import StrEnum

from PIL import Image, ImageDraw

from worker.engine.images import decoded

SQUARE_PIXELS = 32

_Colour = tuple[int, int, int]

_MAGENTA = (255, 0, 255)
_NEAR = 60  # how far each channel may be off


class Fault(StrEnum):
    """What goes wrong. Each is shown by a page with its mark, the last two by the process."""

    HANG = "hang"  # the engine stands still on this page, for ever
    SEGFAULT = "segfault"  # it dies of a null pointer
    KILLED = "killed"  # it is killed, as the kernel does where memory is out
    OUT_OF_MEMORY = "out_of_memory"  # it asks for more memory than there is
    POISON = "poison"  # it dies once it goes on with this page and all others that it holds
    DEVICE_ERROR = "device_error"  # a step raises, as a sticky error of a card makes every step do
    WRONG_ANSWER = "wrong_answer"  # answers come for other pages, and then the right one
    DOUBLE_ANSWER = "double_answer"
    ENDLESS = "endless"  # the text does not stop by itself
    GARBAGE = "garbage"  # text that nobody can store: NUL, lone surrogates, terminal escapes
    TOO_LONG = "too_long"  # one answer of 100 MB
    NONSENSE = "nonsense"  # an answer that is no recognition
    SLOW = "slow"  # goes on, step by step, for OCTAVO_FAKE_SLOW_SECONDS
    UNREADABLE = "unreadable"
    CURED = "cured"  # the text goes round in every mode but the highest
    EMPTY = "empty"  # nothing is read
    START = "start"  # the engine does not start
    GOLDEN = "golden"  # the engine misreads its golden page


def _colour(fault: Fault) -> _Colour:
    """One of the 27 colours with channels of 0, 128 and 255."""
    number = list(Fault).index(fault)
    levels = (0, 128, 255)
    return levels[number // 9 % 3], levels[number // 3 % 3], levels[number % 3]


def _opposite(colour: _Colour) -> _Colour:
    red, green, blue = colour
    return 255 - red, 255 - green, 255 - blue


def mark(page: Image.Image, fault: Fault) -> None:
    """Draw the mark of `fault` onto an RGB page of 96 x 32 pixels or more."""
    draw = ImageDraw.Draw(page)
    for place, colour in enumerate((_MAGENTA, _colour(fault), _opposite(_colour(fault)))):
        left = place * SQUARE_PIXELS
        draw.rectangle((left, 0, left + SQUARE_PIXELS - 1, SQUARE_PIXELS - 1), fill=colour)


def marked(image: bytes) -> Fault | None:
    """The fault whose mark a page has, if any. `image` is a JPEG or PNG."""
    page = decoded(image)
    side = _run_of_magenta(page)
    if side < SQUARE_PIXELS // 4 or page.width < 3 * side:
        return None
    second, third = (_pixel(page, place * side + side // 2, side // 2) for place in (1, 2))
    for fault in Fault:
        colour = _colour(fault)
        if _is_near(second, colour) and _is_near(third, _opposite(colour)):
            return fault
    return None


def _run_of_magenta(page: Image.Image) -> int:
    """How many pixels, from the upper left corner to the right, are magenta."""
    row = min(4, page.height - 1)  # the mark's very edge may be blurred
    for x in range(page.width):
        if not _is_near(_pixel(page, x, row), _MAGENTA):
            return x
    return page.width


def _pixel(page: Image.Image, x: int, y: int) -> _Colour:
    pixel = page.getpixel((x, y))
    assert isinstance(pixel, tuple)
    red, green, blue = pixel
    return int(red), int(green), int(blue)


def _is_near(one: _Colour, other: _Colour) -> bool:
    return all(abs(a - b) <= _NEAR for a, b in zip(one, other, strict=True))
