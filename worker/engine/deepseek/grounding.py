"""The model's markup, taken apart.

    <|ref|>title<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>
    # The text of the block

The model writes it, so it may be anything: cut off, nested, with boxes beyond the page. What is no
complete header is text without its markers; no text is lost, nothing is evaluated, and the time is
linear in the length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from shared.document import Box

_TABLE = "<table"
FULL_SCALE = 999  # boxes are given in 0..999 of the page, whatever was padded around it

_MARKER = re.compile(r"<\|/?(?:ref|det)\|>")
_INSIDE = rf"((?:(?!{_MARKER.pattern}).)*)"  # up to the next marker, and so in linear time
_HEADER = re.compile(rf"<\|ref\|>{_INSIDE}<\|/ref\|>\s*<\|det\|>{_INSIDE}<\|/det\|>", re.DOTALL)
_NUMBER = r"\s{0,8}([0-9]{1,4})\s{0,8}"
_BOX = re.compile(rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]")


@dataclass(frozen=True)
class Region:
    """A piece of the page: what the model calls it, where it stands, and what it says."""

    label: str | None  # None: text without a header
    boxes: list[Box]
    text: str
    span: tuple[int, int]  # of header and text, in the output


def regions(output: str, width: int, height: int) -> Iterator[Region]:
    """The regions of an output in its own order; boxes are pixels of a page of that size.

    The caption of a table stands between the table's header and the table itself; here it comes
    first, and what belongs together is together.
    """
    table: Region | None = None  # a header whose table is still to come
    for region in _as_written(output, width, height):
        caption, tag, rest = region.text.partition(_TABLE)
        if table is not None and region.label == "table_caption" and tag:
            yield replace(region, text=caption.strip())
            yield replace(table, text=tag + rest, span=region.span)
            table = None
            continue
        if table is not None:
            yield table
        table = region if region.label == "table" and not region.text else None
        if table is None:
            yield region
    if table is not None:
        yield table


def _as_written(output: str, width: int, height: int) -> Iterator[Region]:
    headers = list(_HEADER.finditer(output))
    ends = [header.start() for header in headers] + [len(output)]
    yield from _paragraphs(output[: ends[0]])
    for header, end in zip(headers, ends[1:], strict=True):
        found = list(boxes(header[2], width, height))
        text = _text(output[header.end() : end])
        yield Region(header[1].strip(), found, text, (header.start(), end))


def _paragraphs(output: str) -> Iterator[Region]:
    """Text without a header, as other prompts give it, or a page that begins in the middle."""
    start = 0
    for paragraph in output.split("\n\n"):
        end = start + len(paragraph)
        if text := _text(paragraph):
            yield Region(None, [], text, (start, end))
        start = end + len("\n\n")


def _text(between: str) -> str:
    return _MARKER.sub("", between).strip()


def boxes(text: str, width: int, height: int) -> Iterator[Box]:
    """The boxes of a list, in pixels. Corners may come in any order; empty boxes are left out."""
    for match in _BOX.finditer(text):
        x1, y1, x2, y2 = (min(int(number), FULL_SCALE) for number in match.groups())
        left, right = sorted((x1, x2))
        top, bottom = sorted((y1, y2))
        if left < right and top < bottom:
            x0, x1 = _pixels(left, right, width)
            y0, y1 = _pixels(top, bottom, height)
            yield Box(x0=x0, y0=y0, x1=x1, y1=y1)


def _pixels(start: int, end: int, side: int) -> tuple[int, int]:
    """Never empty, however small the page."""
    first = min(int(start / FULL_SCALE * side), side - 1)
    return first, max(int(end / FULL_SCALE * side), first + 1)
