"""Documents that want more than anybody has, lie about their size, or never end; by class.

Each is a few bytes to some hundred kilobytes, made here. `BOMBS` has them all, and what may become
of them; those of tests/documents.py are among them.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial

from PIL import Image

from tests import documents
from tests.documents import LETTER, _chunk, _file_of, _lines, _page, _pdf_of, _repeated, _stream

_MANY = 100_000
_INT_MAX = 2**31 - 1


# PDF: what a page says of its size


def pdf_with_box(box: bytes, *, rest: bytes = b"") -> bytes:
    """A PDF of one page that has this MediaBox, and whatever else stands behind it."""
    page, content = _page(LETTER, _lines("Octavo 42", LETTER))
    old = b"/MediaBox [0 0 612.0000 792.0000]"
    assert old in page
    return _pdf_of([(page.replace(old, b"/MediaBox " + box + rest), content)])


# PDF: its page tree


def endless_page_tree() -> bytes:
    """A page tree whose node has itself as a kid."""
    return documents.pdf(1).replace(b"/Kids [4 0 R]", b"/Kids [4 0 R 2 0 R 2 0 R]")


def deep_page_tree(depth: int = 50_000) -> bytes:
    """A page below so many nodes, each the only kid of the one above."""
    nodes = [
        b"<< /Type /Pages /Parent %d 0 R /Count 1 /Kids [%d 0 R] >>" % (n + 2, n + 4)
        for n in range(depth)
    ]
    page = b"<< /Type /Page /Parent %d 0 R /MediaBox [0 0 612 792] >>" % (depth + 2)
    root = b"<< /Type /Catalog /Pages 2 0 R >>"
    return _file_of([root, b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>", *nodes, page])


def shared_page_tree(depth: int = 5, width: int = 12) -> bytes:
    """248,832 pages of seven objects: all kids of a node are the same one."""
    count = width**depth
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>"]
    for level in range(depth):
        kids = b"%d 0 R " % (level + 3) * width
        objects.append(b"<< /Type /Pages /Count %d /Kids [%s] >>" % (count, kids))
        count //= width
    objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>")
    return _file_of(objects)


def many_pages(pages: int = 200_000) -> bytes:
    """As many pages, and no more objects than those."""
    kids = b" ".join(b"%d 0 R" % (n + 3) for n in range(pages))
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] >>"
    tree = b"<< /Type /Pages /Count %d /Kids [%s] >>" % (pages, kids)
    return _file_of([b"<< /Type /Catalog /Pages 2 0 R >>", tree, *[page] * pages])


def self_drawing_form() -> bytes:
    """A form XObject that draws itself."""
    form = _stream(
        b"/Type /XObject /Subtype /Form /BBox [0 0 612 792]"
        b" /Resources << /XObject << /F0 4 0 R >> >>",
        b"0 0 m 9 9 l S /F0 Do /F0 Do",
    )
    page = _page(LETTER, b"/F0 Do", resources=b"/XObject << /F0 4 0 R >>")
    return _pdf_of([page], extra=[form])


def self_tiling_pattern() -> bytes:
    """A pattern that is filled with itself."""
    tile = _stream(
        b"/Type /Pattern /PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 9 9] /XStep 9"
        b" /YStep 9 /Resources << /Pattern << /P0 4 0 R >> >>",
        b"/Pattern cs /P0 scn 0 0 9 9 re f",
    )
    content = b"/Pattern cs /P0 scn 0 0 612 792 re f"
    return _pdf_of([_page(LETTER, content, resources=b"/Pattern << /P0 4 0 R >>")], extra=[tile])


def self_measuring_stream() -> bytes:
    """A stream whose length is itself."""
    stream = b"<< /Length 4 0 R >>\nstream\n0 0 9 9 re f\nendstream"
    page = _page(LETTER, b"")[0] % 4
    return _file_of(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Count 1 /Kids [5 0 R] >>",
            b"null",
            stream,
            page.replace(b"/Helv 3 0 R", b""),
        ]
    )


def self_referring_objects() -> bytes:
    """An object that is a reference to an object that is a reference to it."""
    return (
        documents.pdf(1)
        .replace(b"/Pages 2 0 R", b"/Pages 6 0 R")
        .replace(b"trailer", b"6 0 obj 7 0 R endobj 7 0 obj 6 0 R endobj trailer")
    )


def nested_arrays(depth: int = 200_000) -> bytes:
    """A page whose resources are arrays in arrays."""
    return pdf_with_box(b"[0 0 612 792]", rest=b" /Annots " + b"[" * depth + b"]" * depth)


# PDF: its table of objects


def huge_xref(count: int = _INT_MAX) -> bytes:
    """A table that says it has as many entries."""
    return (
        documents.pdf(1)
        .replace(b"xref\n0 6", b"xref\n0 %d" % count)
        .replace(b"/Size 6", b"/Size %d" % count)
    )


def huge_xref_stream() -> bytes:
    """A stream of 400 MB in 400 KB, as a table of objects."""
    table = _repeated(bytes(1024**2), 400)
    entries = (
        b"/Type /XRef /Size 2147483647 /Index [0 2147483647] /W [1 2 1] /Root 1 0 R"
        b" /Filter /FlateDecode"
    )
    return b"%%PDF-1.7\n9 0 obj\n%s\nendobj\nstartxref\n9\n%%%%EOF\n" % _stream(entries, table)


def endless_xref() -> bytes:
    """A table whose previous one is itself."""
    whole = documents.pdf(1)
    place = whole.rindex(b"startxref\n") + len(b"startxref\n")
    return whole.replace(b"/Size 6", b"/Prev %s /Size 6" % whole[place:].partition(b"\n")[0])


def object_stream_bomb() -> bytes:
    """A stream of objects that says it has two billion of them."""
    bomb = _stream(b"/Type /ObjStm /N %d /First %d" % (_INT_MAX, _INT_MAX), b"1 0 2 0 <<>>")
    return _file_of(
        [b"<< /Type /Catalog /Pages 2 0 R >>", b"<< /Type /Pages /Count 1 /Kids [3 0 R] >>", bomb]
    )


# PDF: its streams


def image_pdf(filters: bytes, data: bytes, *, width: int, height: int, more: bytes = b"") -> bytes:
    """A page with one image of that many samples, so encoded."""
    entries = (
        b"/Type /XObject /Subtype /Image /Width %d /Height %d /BitsPerComponent 8"
        b" /ColorSpace /DeviceGray /Filter %s %s" % (width, height, filters, more)
    )
    content = b"q 500 0 0 500 50 50 cm /Im0 Do Q"
    page = _page(LETTER, content, resources=b"/XObject << /Im0 4 0 R >>")
    return _pdf_of([page], extra=[_stream(entries, data)])


def jbig2_pdf(width: int, height: int, *, symbols: int | None = None) -> bytes:
    """An image whose JBIG2 says it is as large, or that it has as many symbols."""
    data = _jbig2_segment(0, 48, struct.pack(">IIIIBH", width, height, 0, 0, 0, 0))
    if symbols is not None:
        at = b"\x03\xff\xfd\xff\x02\xfe\xfe\xfe"
        data += _jbig2_segment(
            1, 0, b"\0\0" + at + struct.pack(">II", symbols, symbols) + bytes(64)
        )
    region = struct.pack(">IIIIBB", width, height, 0, 0, 0, 0) + b"\x03\xff\xfd\xff\x02\xfe\xfe\xfe"
    data += _jbig2_segment(2, 38, region + bytes(64))
    return image_pdf(b"/JBIG2Decode", data, width=1000, height=1000)


def _jbig2_segment(number: int, kind: int, data: bytes) -> bytes:
    return struct.pack(">IBBBI", number, kind, 0, 1, len(data)) + data


def jpx_pdf(side: int, tile: int, *, components: int = 1) -> bytes:
    """An image whose JPEG 2000 says it is as large, in tiles as large."""
    size = struct.pack(">HIIIIIIIIH", 0, side, side, 0, 0, tile, tile, 0, 0, components)
    size += b"\x07\x01\x01" * components
    coding = b"\x00\x00\x00\x01\x00\x05\x04\x04\x00\x01"
    start = struct.pack(">HHH", 0xFF4F, 0xFF51, len(size) + 2) + size
    start += struct.pack(">HH", 0xFF52, len(coding) + 2) + coding
    tile_part = (
        b"\xff\x5c\x00\x13\x40" + bytes(16) + b"\xff\x90\x00\x0a" + bytes(7) + b"\x01\xff\x93"
    )
    code = start + tile_part + bytes(64) + b"\xff\xd9"
    return image_pdf(b"/JPXDecode", code, width=side, height=side)


def lzw_pdf() -> bytes:
    """An image of 30,000 by 30,000 in LZW, the code of whose table is never ended."""
    return image_pdf(b"/LZWDecode", b"\x80\x0b\x60\x50" * 20_000, width=30_000, height=30_000)


def fax_pdf() -> bytes:
    """A fax of two billion columns."""
    more = b"/DecodeParms << /K -1 /Columns %d /Rows %d >>" % (_INT_MAX, _INT_MAX)
    return image_pdf(b"/CCITTFaxDecode", b"\x00\x10\x01" * 99, width=_INT_MAX, height=9, more=more)


def predictor_pdf() -> bytes:
    """Rows of two billion columns, to be predicted from those above."""
    more = b"/DecodeParms << /Predictor 15 /Columns %d /Colors 9999 >>" % _INT_MAX
    data = zlib.compress(bytes(10_000))
    return image_pdf(b"/FlateDecode", data, width=20_000, height=20_000, more=more)


def many_filters(count: int = 5_000) -> bytes:
    """A page's content behind as many filters."""
    page = _page(
        LETTER, zlib.compress(b"0 0 9 9 re f"), filters=b"[%s]" % (b"/FlateDecode " * count)
    )
    return _pdf_of([page])


def flate_thrice() -> bytes:
    """A page's content of 20 GB, deflated three times into 1 KB."""
    once = _repeated(bytes(1024**2), 200)
    data = zlib.compress(_repeated(once[:64_000], 100))
    return _pdf_of([_page(LETTER, data, filters=b"[/FlateDecode /FlateDecode /FlateDecode]")])


def nested_states(depth: int = 1_000_000) -> bytes:
    """A page that saves its state a million times."""
    return _pdf_of([_page(LETTER, zlib.compress(b"q " * depth), filters=b"/FlateDecode")])


def nested_text_arrays(depth: int = 500_000) -> bytes:
    """Operands that are arrays in arrays, in a page's content."""
    content = zlib.compress(b"[" * depth + b"]" * depth + b" TJ")
    return _pdf_of([_page(LETTER, content, filters=b"/FlateDecode")])


def sampled_function_pdf() -> bytes:
    """A shading by a function that has 65,535 to the fourth samples."""
    shading = (
        b"<< /ShadingType 1 /ColorSpace /DeviceGray /Domain [0 1 0 1] /Matrix [612 0 0 792 0 0]"
        b" /Function 5 0 R >>"
    )
    function = _stream(
        b"/FunctionType 0 /Domain [0 1 0 1 0 1 0 1] /Range [0 1] /BitsPerSample 32"
        b" /Size [65535 65535 65535 65535]",
        b"\x00" * 99,
    )
    page = _page(LETTER, b"/S0 sh", resources=b"/Shading << /S0 4 0 R >>")
    return _pdf_of([page], extra=[shading, function])


def calculator_pdf() -> bytes:
    """A shading whose every point is a long calculation."""
    steps = b"{ " + b"dup sin 2 copy mul exch pop " * 20_000 + b"pop pop 0 }"
    shading = (
        b"<< /ShadingType 1 /ColorSpace /DeviceGray /Domain [0 1 0 1] /Matrix [612 0 0 792 0 0]"
        b" /Function 5 0 R >>"
    )
    function = _stream(b"/FunctionType 4 /Domain [0 1 0 1] /Range [0 1]", steps)
    page = _page(LETTER, b"/S0 sh", resources=b"/Shading << /S0 4 0 R >>")
    return _pdf_of([page], extra=[shading, function])


def masked_groups_pdf(count: int = 3_000) -> bytes:
    """As many transparent groups of the page's size, each in the one before."""
    form = _stream(
        b"/Type /XObject /Subtype /Form /BBox [0 0 612 792] /Group << /S /Transparency /I true >>"
        b" /Resources << /XObject << /F0 4 0 R >> /ExtGState << /G << /ca 0.5 >> >> >>",
        b"/G gs 0 0 612 792 re f /F0 Do",
    )
    content = b"/G gs " + b"/F0 Do " * count
    resources = b"/XObject << /F0 4 0 R >> /ExtGState << /G << /ca 0.5 /BM /Multiply >> >>"
    return _pdf_of([_page(LETTER, content, resources=resources)], extra=[form])


def dashes_pdf() -> bytes:
    """A line of 10^9 points in dashes of a millionth."""
    return _pdf_of([_page(LETTER, b"[0.000001] 0 d 1 w 0 0 m 1000000000 792 l S")])


# PDF: encryption, and what it would like to be run


def odd_encryption(handler: bytes) -> bytes:
    """A PDF that is encrypted by something else than the standard's methods."""
    return documents.pdf(1).replace(b"/Root 1 0 R", b"/Root 1 0 R /Encrypt << %s >>" % handler)


def active_pdf() -> bytes:
    """A PDF that would like to run, launch, submit, import and embed."""
    actions = (
        b"/OpenAction << /S /JavaScript /JS (app.alert\\(1\\); this.submitForm\\('http://127.0.0.1'\\);"
        b" while \\(true\\) {}) >> /AA << /WC << /S /Launch /F (/bin/sh) >> >>"
        b" /Names << /JavaScript << /Names [(x) << /S /JavaScript /JS (while \\(true\\) {}) >>] >>"
        b" /EmbeddedFiles << /Names [(a) << /Type /Filespec /F (/etc/passwd) >>] >> >>"
        b" /AcroForm << /XFA [(template) 3 0 R] /Fields [] >>"
    )
    page_actions = b" /AA << /O << /S /URI /URI (http://127.0.0.1/) >> >>"
    whole = pdf_with_box(b"[0 0 612 792]", rest=page_actions)
    return whole.replace(b"/Type /Catalog", b"/Type /Catalog " + actions)


# Images


def gif_of_frames(frames: int = _MANY) -> bytes:
    """A GIF with as many frames of 16 by 16 pixels."""
    one = documents.saved(Image.new("P", (16, 16)), "GIF")
    start = one.index(b",", 13)
    return one[:start] + one[start:-1] * frames + b";"


def webp_of_frames(frames: int = _MANY) -> bytes:
    """A WebP with as many frames of 16 by 16 pixels."""
    two = [Image.new("RGB", (16, 16), colour) for colour in ("white", "black")]
    whole = documents.saved(two[0], "WEBP", save_all=True, append_images=two[1:], lossless=True)
    start = whole.index(b"ANMF")
    size = 8 + struct.unpack_from("<I", whole, start + 4)[0]
    body = whole[8:start] + whole[start : start + size] * frames
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff_of_directories(count: int = _MANY, *, last: int = 0) -> bytes:
    """A TIFF with as many pages of 16 by 16 pixels; after the last comes the directory at `last`."""
    entries = [(256, 16), (257, 16), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 16)]
    entries.append((279, 256))
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    first, size = 8 + 256, len(body) + 4
    out = bytearray(struct.pack("<2sHI", b"II", 42, first) + bytes(256))
    for n in range(count):
        out += body + struct.pack("<I", first + (n + 1) * size if n + 1 < count else last)
    return bytes(out)


def tiff_with(*entries: tuple[int, int, int, int], data: bytes = b"") -> bytes:
    """A TIFF of one directory with these entries: tag, type, count, value."""
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + body + bytes(4)


def deflated_tiff(width: int, height: int, *, claimed: int | None = None) -> bytes:
    """A TIFF whose deflated samples are white, in one strip; or as many rows as it claims."""
    data = _repeated(b"\xff" * 1024 * 100, width * height // (1024 * 100) + 1)
    return tiff_with(
        (256, 4, 1, width),
        (257, 4, 1, claimed or height),
        (258, 4, 1, 8),
        (259, 4, 1, 8),
        (262, 4, 1, 1),
        (273, 4, 1, 8),
        (277, 4, 1, 1),
        (278, 4, 1, claimed or height),
        (279, 4, 1, len(data)),
        data=data,
    )


def png_with(kind: bytes, data: bytes) -> bytes:
    """A PNG with one more chunk, before its pixels."""
    whole = documents.png()
    place = whole.index(b"IDAT") - 4
    return whole[:place] + _chunk(kind, data) + whole[place:]


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is as large, and has no such pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1_000))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def jpeg_with_segments(marker: int, data: bytes, times: int) -> bytes:
    """A JPEG with so many more segments."""
    whole = documents.jpeg()
    segment = struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data
    return whole[:2] + segment * times + whole[2:]


def looping_exif() -> bytes:
    """EXIF whose directories lead to each other, and whose tags claim two billion values."""
    entries = [(0x8769, 4, 1, 8), (0x8825, 4, 1, 8), (0x010F, 2, _INT_MAX, 8), (0x0112, 3, 1, 6)]
    body = struct.pack("<H", len(entries))
    body += b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, 8) + body + struct.pack("<I", 8)


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG that says it is as large."""
    whole = documents.jpeg()
    place = whole.index(b"\xff\xc0") + 5
    return whole[:place] + struct.pack(">HH", height, width) + whole[place + 4 :]


def progressive_jpeg(scans: int = 2_000, *, side: int = 3_000) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    out = io.BytesIO()
    Image.new("L", (side, side), 255).save(out, "JPEG", progressive=True, quality=50)
    whole = out.getvalue()
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + whole[last:-2] * scans + b"\xff\xd9"


def bmp_of(width: int, height: int, *, bits: int = 24, compression: int = 0) -> bytes:
    """A BMP that says it is as large."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 99, 0, 0, 54) + info + bytes(99)


def webp_of(width: int, height: int) -> bytes:
    """A WebP whose canvas says it is as large."""
    whole = documents.webp("one", "two")
    place = whole.index(b"VP8X") + 12
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return whole[:place] + size + whole[place + 6 :]


def heic_of(width: int, height: int) -> bytes:
    """A HEIC whose container says it is as large."""
    whole = documents.heic()
    place = whole.index(b"ispe") + 8
    return whole[:place] + struct.pack(">II", width, height) + whole[place + 8 :]


# Two things at once


def pdf_in_png() -> bytes:
    """A PNG with a PDF behind it."""
    return documents.png() + documents.pdf(3)


def png_before_pdf() -> bytes:
    """A PDF that begins with something like a JPEG."""
    return b"\xff\xd8\xff\xe0" + bytes(96) + documents.pdf(3)


def junk_before_pdf(length: int) -> bytes:
    """A PDF behind as much of something else."""
    return b"#!/bin/sh\n".ljust(length, b" ") + documents.pdf(1)


PAGE = "a page"
INVALID, EXPENSIVE = "document_invalid", "document_too_expensive"
DIMENSIONS, MANY_PAGES, ENCRYPTED = "image_dimensions", "too_many_pages", "document_encrypted"

BOMBS: dict[str, tuple[Callable[[], bytes], set[str]]] = {
    "nested forms": (documents.form_bomb_pdf, {EXPENSIVE}),
    "operators": (documents.operator_bomb_pdf, {EXPENSIVE}),
    "an image deflated twice": (documents.image_bomb_pdf, {PAGE, EXPENSIVE}),
    "a tile set billions of times": (documents.spinning_pdf, {EXPENSIVE}),
    "box of a million": (partial(pdf_with_box, b"[0 0 1000000 1000000]"), {PAGE}),
    "box of no width": (partial(pdf_with_box, b"[0 0 0.001 65000]"), {DIMENSIONS}),
    "box of nothing": (partial(pdf_with_box, b"[0 0 0 0]"), {PAGE}),
    "box upside down": (partial(pdf_with_box, b"[612 792 0 0]"), {PAGE}),
    "box below zero": (partial(pdf_with_box, b"[-612 -792 0 0]"), {PAGE}),
    "box too short": (partial(pdf_with_box, b"[0 0 612]"), {PAGE}),
    "box of names": (partial(pdf_with_box, b"[/a /b (c) <<>>]"), {PAGE}),
    "box of 400 digits": (
        partial(pdf_with_box, b"[0 0 %s 792]" % (b"9" * 400)),
        {DIMENSIONS, PAGE},
    ),
    "box of no numbers": (partial(pdf_with_box, b"[0 0 nan inf]"), {PAGE, DIMENSIONS}),
    "box with exponents": (partial(pdf_with_box, b"[0 0 1e999 -1e999]"), {PAGE, DIMENSIONS}),
    "no box": (partial(pdf_with_box, b"null"), {PAGE}),
    "crop outside": (
        partial(pdf_with_box, b"[0 0 612 792]", rest=b" /CropBox [9000 9000 9999 9999]"),
        {DIMENSIONS},
    ),
    "odd rotation": (partial(pdf_with_box, b"[0 0 612 792]", rest=b" /Rotate -2147483648"), {PAGE}),
    "count": (lambda: documents.pdf(1).replace(b"/Count 1", b"/Count 2147483647"), {PAGE}),
    "200,000 pages": (many_pages, {MANY_PAGES}),
    "pages that share their kids": (shared_page_tree, {MANY_PAGES, PAGE, INVALID}),
    "deep page tree": (deep_page_tree, {PAGE, INVALID}),
    "endless page tree": (endless_page_tree, {PAGE, INVALID}),
    "a form that draws itself": (self_drawing_form, {PAGE, EXPENSIVE}),
    "a pattern filled with itself": (self_tiling_pattern, {PAGE, EXPENSIVE}),
    "a stream as long as itself": (self_measuring_stream, {PAGE, INVALID}),
    "references in a ring": (self_referring_objects, {PAGE, INVALID}),
    "arrays in arrays": (nested_arrays, {PAGE, INVALID}),
    "xref of two billion": (huge_xref, {PAGE, INVALID}),
    "xref stream": (huge_xref_stream, {INVALID, EXPENSIVE}),
    "endless xref": (endless_xref, {PAGE, INVALID}),
    "object stream": (object_stream_bomb, {INVALID}),
    "JBIG2 of 2^32 pixels a side": (partial(jbig2_pdf, 2**32 - 1, 2**32 - 1), {PAGE}),
    "JBIG2 of 65,535 pixels a side": (partial(jbig2_pdf, 65_535, 65_535), {PAGE, EXPENSIVE}),
    "JBIG2 of 2^32 symbols": (partial(jbig2_pdf, 9, 9, symbols=2**32 - 1), {PAGE, EXPENSIVE}),
    "JPX of 2^31 pixels a side": (partial(jpx_pdf, 2**31 - 1, 2**31 - 1), {PAGE}),
    "JPX of a billion tiles": (partial(jpx_pdf, 30_000, 1), {PAGE, EXPENSIVE}),
    "JPX of 16,384 components": (
        partial(jpx_pdf, 9_999, 9_999, components=16_384),
        {PAGE, EXPENSIVE},
    ),
    "LZW": (lzw_pdf, {PAGE, EXPENSIVE}),
    "fax of two billion columns": (fax_pdf, {PAGE}),
    "predictor": (predictor_pdf, {PAGE, EXPENSIVE}),
    "5,000 filters": (many_filters, {PAGE, EXPENSIVE}),
    "deflated thrice": (flate_thrice, {PAGE, EXPENSIVE}),
    "a million states": (nested_states, {PAGE, EXPENSIVE}),
    "operands in operands": (nested_text_arrays, {PAGE, EXPENSIVE}),
    "samples": (sampled_function_pdf, {PAGE, EXPENSIVE}),
    "calculations": (calculator_pdf, {PAGE, EXPENSIVE}),
    "groups in groups": (masked_groups_pdf, {PAGE, EXPENSIVE}),
    "dashes": (dashes_pdf, {PAGE, EXPENSIVE}),
    "encrypted by nobody": (partial(odd_encryption, b"/Filter /Nobody /V 1"), {INVALID, ENCRYPTED}),
    "encrypted for a key": (
        partial(odd_encryption, b"/Filter /Adobe.PubSec /SubFilter /adbe.pkcs7.s5 /V 4"),
        {INVALID, ENCRYPTED},
    ),
    "encrypted by version 99": (
        partial(odd_encryption, b"/Filter /Standard /V 99 /R 99 /O () /U () /P -4 /Length 7"),
        {INVALID, ENCRYPTED},
    ),
    "a PDF that would be active": (active_pdf, {PAGE}),
    "PNG of 50,000 a side": (documents.huge_png, {DIMENSIONS}),
    "PNG of 2^31 a side": (partial(png_of, _INT_MAX, _INT_MAX), {DIMENSIONS, INVALID}),
    "PNG without its pixels": (partial(png_of, 6_000, 6_000), {INVALID}),
    "1 by 65,000": (documents.wide_png, {DIMENSIONS}),
    "GIF of 100,000 frames": (gif_of_frames, {MANY_PAGES}),
    "WebP of 100,000 frames": (webp_of_frames, {MANY_PAGES, INVALID, EXPENSIVE}),
    "TIFF of 100,000 directories": (tiff_of_directories, {MANY_PAGES}),
    "TIFF of directories in a ring": (partial(tiff_of_directories, 3, last=264), {PAGE}),
    "TIFF whose chain is cut": (partial(tiff_of_directories, 3, last=10**9), {PAGE}),
    "TIFF deflated": (partial(deflated_tiff, 6_000, 6_000), {PAGE}),
    "TIFF of more rows than it has": (partial(deflated_tiff, 500, 9, claimed=9_999), {INVALID}),
    "TIFF of 65,535 samples": (
        partial(tiff_with, (256, 4, 1, 99), (257, 4, 1, 99), (258, 3, 1, 8), (277, 3, 1, 65_535)),
        {INVALID},
    ),
    "TIFF of two billion values": (
        partial(tiff_with, (256, 4, _INT_MAX, 0), (257, 4, _INT_MAX, 0), (258, 3, _INT_MAX, 0)),
        {INVALID},
    ),
    "ICC": (
        lambda: png_with(b"iCCP", b"icc\0\0" + _repeated(bytes(1024**2), 400)),
        {PAGE, INVALID, EXPENSIVE},
    ),
    "text": (
        lambda: png_with(b"zTXt", b"t\0\0" + _repeated(bytes(1024**2), 400)),
        {PAGE, INVALID, EXPENSIVE},
    ),
    "ICC of 5,000 segments": (
        lambda: jpeg_with_segments(0xE2, b"ICC_PROFILE\0\x01\xff" + bytes(9_000), 5_000),
        {PAGE},
    ),
    "EXIF in a ring": (lambda: jpeg_with_segments(0xE1, looping_exif(), 1), {PAGE}),
    "EXIF of a PNG in a ring": (lambda: png_with(b"eXIf", looping_exif()[6:]), {PAGE}),
    "JPEG of 65,535 a side": (partial(jpeg_of, 65_535, 65_535), {DIMENSIONS}),
    "JPEG of 2,000 scans": (progressive_jpeg, {PAGE, EXPENSIVE}),
    "BMP of 2^31 a side": (partial(bmp_of, _INT_MAX, _INT_MAX), {DIMENSIONS, INVALID}),
    "BMP of less than nothing": (partial(bmp_of, -_INT_MAX, -_INT_MAX), {DIMENSIONS, INVALID}),
    "BMP of runs": (partial(bmp_of, 6_000, 6_000, bits=8, compression=1), {INVALID}),
    "WebP of 16,384 a side": (partial(webp_of, 16_384, 16_384), {DIMENSIONS, INVALID}),
    "HEIC of 2^32 a side": (partial(heic_of, 2**32 - 1, 2**32 - 1), {DIMENSIONS, INVALID}),
    "HEIC of 6,000 a side": (partial(heic_of, 6_000, 6_000), {PAGE, INVALID, DIMENSIONS}),
    "a PDF behind a PNG": (pdf_in_png, {PAGE}),
    "a PDF behind a JPEG": (png_before_pdf, {INVALID}),
    "a PDF behind a program": (partial(junk_before_pdf, 900), {PAGE}),
}
"""Each bomb, and what may become of its first page, or of all of it."""
