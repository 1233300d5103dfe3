"""Documents, broken at random: each case is its number, so that it can be made again."""

from __future__ import annotations

import functools
import io
import random
import re
import struct
import zlib
from collections.abc import Callable

import pikepdf

from shared.media import MediaType, sniff
from tests import bombs, documents

_SMALL = (96, 32)

SEEDS: dict[str, Callable[[], bytes]] = {
    "pdf": lambda: documents.pdf(2, size=(200, 100)),
    "pdf with a form": documents.form_pdf,
    "pdf in object streams": lambda: _compressed(documents.pdf(2, size=(200, 100))),
    "pdf with a password for its owner": documents.owner_protected_pdf,
    "pdf with JBIG2": lambda: bombs.jbig2_pdf(64, 64),
    "pdf with JPEG 2000": lambda: bombs.jpx_pdf(64, 64),
    "pdf with a JPEG": lambda: bombs.image_pdf(
        b"/DCTDecode", documents.jpeg(size=_SMALL), width=96, height=32
    ),
    "pdf with a fax": lambda: bombs.image_pdf(
        b"/CCITTFaxDecode", b"\x26\xa0\x01" * 30, width=64, height=64
    ),
    "pdf with LZW": lambda: bombs.image_pdf(
        b"/LZWDecode", b"\x80\x0b\x60\x50\x22\x0c\x0c\x85\x01" * 9, width=64, height=64
    ),
    "pdf with a shading": bombs.sampled_function_pdf,
    "pdf with groups": lambda: bombs.masked_groups_pdf(1),
    "png": lambda: documents.png(size=_SMALL),
    "png with a palette": documents.palette_png,
    "png of 16 bits": documents.deep_png,
    "png with EXIF": lambda: bombs.png_with(b"eXIf", bombs.looping_exif()[6:]),
    "jpeg": lambda: documents.jpeg(size=_SMALL),
    "jpeg in CMYK": documents.cmyk_jpeg,
    "jpeg with EXIF": lambda: documents.rotated_jpeg(orientation=6),
    "jpeg in scans": lambda: bombs.progressive_jpeg(2, side=64),
    "tiff of one bit": lambda: documents.tiff("a", "b", size=_SMALL),
    "tiff of floats": lambda: documents.deep_tiff(mode="F"),
    "tiff deflated": lambda: _tiff("tiff_adobe_deflate"),
    "tiff in LZW": lambda: _tiff("tiff_lzw"),
    "tiff with a JPEG": lambda: _tiff("jpeg"),
    "tiff in pack bits": lambda: _tiff("packbits"),
    "tiff of three pages": lambda: bombs.tiff_of_directories(3),
    "webp": lambda: documents.webp("a", "b", size=_SMALL),
    "webp with loss": lambda: documents.saved(documents.picture(size=_SMALL), "WEBP", quality=50),
    "gif": lambda: documents.gif("a", "b", size=_SMALL),
    "bmp": lambda: documents.bmp(size=_SMALL),
    "bmp of runs": lambda: bombs.bmp_of(64, 64, bits=8, compression=1),
    "heic": documents.heic,
}

_NUMBERS = [0, 1, 7, 8, 127, 128, 255, 256, 32_767, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1]
_TEXT_NUMBERS = [
    b"0", b"-1", b"1", b"65536", b"2147483647", b"-2147483648", b"4294967296",
    b"99999999999999999999", b"1e308", b"0.0000001", b".", b"--5", b"nan", b"[", b"<<", b"5 0 R",
    b"null", b"true", b"(x)", b"/X",
]  # fmt: skip
_WORDS = re.compile(rb"-?\d+\.?\d*|/[A-Za-z]\w*|\b(?:endobj|endstream|stream|obj|xref|trailer)\b")


def case(number: int) -> tuple[str, MediaType, bytes]:
    """The seed's name, the type that it is opened as, and the bytes of a case."""
    chance = random.Random(number)  # noqa: S311 (no secret)
    name = chance.choice(list(SEEDS))
    whole = _seed(name)
    media_type = sniff(whole)
    assert media_type is not None
    broken = bytearray(whole)
    for _ in range(chance.choice([1, 1, 2, 3, 6, 12])):
        if broken:
            chance.choice(_TEXTUAL if media_type is MediaType.PDF else _BINARY)(broken, chance)
    if media_type is MediaType.PNG and chance.random() < 0.7:
        broken = _with_checksums(broken)
    return name, media_type, bytes(broken)


def _with_checksums(png: bytearray) -> bytearray:
    """A PNG whose every chunk has its checksum, so that it is decoded for all that."""
    place = 8
    while place + 12 <= len(png):
        end = place + 8 + struct.unpack_from(">I", png, place)[0]
        if end + 4 > len(png):
            break
        struct.pack_into(">I", png, end, zlib.crc32(png[place + 4 : end]))
        place = end + 4
    return png


@functools.cache
def _seed(name: str) -> bytes:
    return SEEDS[name]()


def _compressed(whole: bytes) -> bytes:
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(whole)) as document:
        document.save(out, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    return out.getvalue()


def _tiff(compression: str) -> bytes:
    image = documents.picture(size=_SMALL)
    return documents.saved(image, "TIFF", compression=compression)


# What is done to the bytes


def flip(broken: bytearray, chance: random.Random) -> None:
    """One bit is another."""
    broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)


def number(broken: bytearray, chance: random.Random) -> None:
    """One, two or four bytes are a number that is at the edge of something."""
    kind = chance.choice("BHI")
    raw = struct.pack(chance.choice("<>") + kind, _edge(kind, chance))
    place = chance.randrange(len(broken))
    broken[place : place + len(raw)] = raw


def _edge(kind: str, chance: random.Random) -> int:
    return int(chance.choice(_NUMBERS)) & ((1 << 8 * struct.calcsize(kind)) - 1)


def noise(broken: bytearray, chance: random.Random) -> None:
    """Some bytes are any others."""
    start, end = _part(broken, chance, 64)
    broken[start:end] = chance.randbytes(end - start)


def remove(broken: bytearray, chance: random.Random) -> None:
    """Some bytes are gone."""
    start, end = _part(broken, chance, 256)
    del broken[start:end]


def repeat(broken: bytearray, chance: random.Random) -> None:
    """Some bytes come again, up to a hundred times."""
    start, end = _part(broken, chance, 256)
    broken[end:end] = broken[start:end] * chance.choice([1, 2, 100])


def move(broken: bytearray, chance: random.Random) -> None:
    """Some bytes are elsewhere too."""
    start, end = _part(broken, chance, 128)
    place = chance.randrange(len(broken))
    broken[place : place + end - start] = broken[start:end]


def cut(broken: bytearray, chance: random.Random) -> None:
    """The end is gone."""
    del broken[chance.randrange(len(broken)) :]


def splice(broken: bytearray, chance: random.Random) -> None:
    """From here on it is another document."""
    other = _seed(chance.choice(list(SEEDS)))
    broken[chance.randrange(len(broken)) :] = other[chance.randrange(len(other)) :]


def word(broken: bytearray, chance: random.Random) -> None:
    """A number, a name or a keyword of a PDF is another, or something else."""
    words = list(_WORDS.finditer(broken))
    if not words:
        return
    place, other = chance.choice(words), chance.choice(words)
    new = other.group() if chance.random() < 0.5 else chance.choice(_TEXT_NUMBERS)
    broken[place.start() : place.end()] = new


def _part(broken: bytearray, chance: random.Random, most: int) -> tuple[int, int]:
    start = chance.randrange(len(broken))
    return start, min(len(broken), start + chance.randint(1, most))


_BINARY = [flip, flip, number, number, noise, remove, repeat, move, cut, splice]
_TEXTUAL = [word, word, word, word, word, *_BINARY]
