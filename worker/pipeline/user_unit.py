"""How large the pages of a PDF say that their units are: `/UserUnit`, in 1/72 of an inch.

Pdfium does not tell, so the page tree is read here once more, by its words: no second parser for
one number that few documents have. What cannot be followed (an encrypted object stream, a tree that
pdfium had to mend) counts as 1, and a document that never mentions it costs a search for the word.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from mmap import mmap

_WORD = b"/UserUnit"
_MOST_OBJECTS = 500_000
_MOST_INFLATED_BYTES = 64 * 1024**2
_MOST_OBJECT_BYTES = 1024**2
_MOST_DICTIONARY_BYTES = 4_000

_OBJECT = re.compile(rb"(\d{1,10})\s+\d{1,5}\s+obj\b")
_REFERENCE = re.compile(rb"(\d{1,10})\s+\d{1,5}\s+R\b")
_KIDS = re.compile(rb"/Kids\s*(?:\[([^\]]*)\]|(\d{1,10})\s+\d{1,5}\s+R)")
_PAGES = re.compile(rb"/Pages\s+(\d{1,10})\s")
_ROOT = re.compile(rb"/Root\s+(\d{1,10})\s")
_UNIT = re.compile(rb"/UserUnit\s+\+?(\d{0,9}\.?\d{0,9})")
_COUNT = re.compile(rb"/N\s+(\d{1,6})")
_FIRST = re.compile(rb"/First\s+(\d{1,8})")


def user_units(content: mmap, pages_total: int) -> list[float]:
    """The unit of each page; empty where all are 1, or where they cannot be told."""
    streams = list(_object_streams(content)) if content.find(b"/ObjStm") >= 0 else []
    if content.find(_WORD) < 0 and not any(_WORD in inflated for _, inflated in streams):
        return []
    objects = _plain_objects(content)
    for dictionary, inflated in streams:
        objects.update(_packed_objects(dictionary, inflated))
    roots = _ROOT.findall(content)
    units = list(_units(objects, roots[-1], pages_total)) if roots else []
    return units if len(units) == pages_total else []


def _plain_objects(content: mmap) -> dict[bytes, bytes]:
    """The objects that stand in the file, by number; of several the last, as an update has it."""
    objects: dict[bytes, bytes] = {}
    for match in _OBJECT.finditer(content):
        if len(objects) > _MOST_OBJECTS:
            break
        start = match.end()
        end = content.find(b"endobj", start, start + _MOST_OBJECT_BYTES)
        objects[match[1]] = content[start:end].partition(b"stream")[0]
    return objects


def _object_streams(content: mmap) -> Iterator[tuple[bytes, bytes]]:
    """The dictionary and the inflated bytes of each stream of objects that can be inflated."""
    left, place = _MOST_INFLATED_BYTES, content.find(b"/ObjStm")
    while place >= 0 and left > 0:
        start = content.rfind(b"obj", max(0, place - _MOST_DICTIONARY_BYTES), place)
        stream = content.find(b"stream", place, place + _MOST_DICTIONARY_BYTES)
        if start >= 0 and stream >= 0:
            end = content.find(b"endstream", stream)
            packed = content[stream + len(b"stream") : end].lstrip(b"\r\n")
            inflated = _inflated(packed, left)
            left -= len(inflated)
            yield content[start:stream], inflated
        place = content.find(b"/ObjStm", place + 1)


def _inflated(packed: bytes, most: int) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, most)
    except zlib.error:
        return b""


def _packed_objects(dictionary: bytes, inflated: bytes) -> Iterator[tuple[bytes, bytes]]:
    count, first = _COUNT.search(dictionary), _FIRST.search(dictionary)
    if count is None or first is None:
        return
    start = int(first[1])
    head = inflated[:start].split()[: 2 * int(count[1])]
    numbers, offsets = head[::2], [int(word) for word in head[1::2] if word.isdigit()]
    for number, begin, end in zip(numbers, offsets, [*offsets[1:], len(inflated)], strict=False):
        yield number, inflated[start + begin : start + end]


def _units(objects: dict[bytes, bytes], root: bytes, most: int) -> Iterator[float]:
    """The unit of each page, down the tree and no further than `most`."""
    pages = _PAGES.search(objects.get(root, b"") + b" ")
    waiting, seen, told = [pages[1]] if pages else [], set[bytes](), 0
    while waiting and told <= most:
        number = waiting.pop()
        node = objects.get(number, b"")
        kids = _KIDS.search(node)
        if kids is None:
            told += 1
            yield _unit(node)
        elif number not in seen:
            seen.add(number)
            array = objects.get(kids[2], b"") if kids[2] else kids[1]
            waiting += reversed(_REFERENCE.findall(array))


def _unit(page: bytes) -> float:
    match = _UNIT.search(page)
    try:
        return float(match[1]) if match else 1.0
    except ValueError:
        return 1.0
