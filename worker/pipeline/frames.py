"""How many pages an image file has, counted by its own structure; GIF and TIFF.

Pillow ends its count where a file is cut off, and the frames behind are lost without a word. Here a
file that ends before it should has one page more than it can show, and that page is its failure.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from mmap import mmap

_BIG_TIFF = 43
_TRAILER, _EXTENSION, _IMAGE = b";!,"  # which each block of a GIF begins with


@dataclass(frozen=True)
class Frames:
    """`total` pages, of which the first `whole` are all there."""

    total: int
    whole: int


class _Cut(Exception):
    """The file ends here."""


def frames_of_gif(content: mmap, most: int) -> Frames:
    """The frames of a GIF, each with all of its data; counted no further than one past `most`."""
    count = 0
    try:
        position = _after_table(13, _byte(content, 10))
        while count <= most:
            kind = _byte(content, position)
            if kind == _TRAILER:
                return Frames(count, count)
            if kind == _EXTENSION:  # with its label
                position = _after_blocks(content, position + 2)
            elif kind == _IMAGE:  # nine bytes, its colours, the width of its codes
                position = _after_table(position + 10, _byte(content, position + 9))
                position = _after_blocks(content, position + 1)
                count += 1
            else:
                position += 1  # what Pillow skips too
    except _Cut:
        return Frames(count + 1, count)
    return Frames(count, count)


def frames_of_tiff(content: mmap, most: int) -> Frames:
    """The directories of a TIFF, until their chain ends; counted no further than one past `most`."""
    order = ">" if content[:2] == b"MM" else "<"
    seen: set[int] = set()
    whole = 0
    try:
        big = _number(content, 2, order + "H") == _BIG_TIFF
        directory = _number(content, 8, order + "Q") if big else _number(content, 4, order + "I")
        while directory and directory not in seen and len(seen) <= most:
            seen.add(directory)
            entries = _number(content, directory, order + ("Q" if big else "H"))
            after = directory + (8 + 20 * entries if big else 2 + 12 * entries)
            _byte(content, after - 1)
            whole = len(seen)
            directory = _number(content, after, order + ("Q" if big else "I"))
    except _Cut:
        return Frames(whole + 1, whole)
    return Frames(len(seen), len(seen))


def _number(content: mmap, position: int, kind: str) -> int:
    if position + struct.calcsize(kind) > len(content):
        raise _Cut
    number: int = struct.unpack_from(kind, content, position)[0]
    return number


def _byte(content: mmap, position: int) -> int:
    if position >= len(content):
        raise _Cut
    return content[position]


def _after_table(position: int, flags: int) -> int:
    """Where a table of colours ends that these flags announce."""
    return position + (3 << (flags & 7) + 1 if flags & 0x80 else 0)


def _after_blocks(content: mmap, position: int) -> int:
    while length := _byte(content, position):
        position += length + 1
    return position + 1
