"""Documents for the tests, good and hostile, each as the bytes of a file.

All are made here. A good one shows text that can be read back; a hostile one says what it wants.

    pdf, encrypted_pdf, owner_protected_pdf, pdf_with_sizes, form_pdf    vector pages
    pdf_with_broken_page, pdf_with_bomb_page                             bad among good
    form_bomb_pdf, operator_bomb_pdf, image_bomb_pdf                     want memory
    busy_pdf, spinning_pdf                                               want time
    png, jpeg, bmp, tiff, gif, webp, heic                                images with text
    rotated_jpeg, cmyk_jpeg, transparent_png, palette_png, deep_...      odd ones
    wide_png, huge_png, truncated                                        to be refused
"""

from __future__ import annotations

import base64
import functools
import io
import struct
import tempfile
import zlib
from typing import IO, Any

import pikepdf
from PIL import ExifTags, Image, ImageDraw, ImageFont, ImageOps

LETTER = (612.0, 792.0)
"""Width and height of a page in points; 1275 by 1650 pixels at 150 dpi."""

_MEBIBYTE = bytes(1024**2)


def file_of(document: bytes) -> IO[bytes]:
    """A temporary file, gone when it is closed, that holds `document`."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 (whoever wants it closes it)
    file.write(document)
    file.flush()
    return file


# PDF


def pdf(
    pages: int = 3,
    text: str = "Page {page} of {pages}",
    *,
    size: tuple[float, float] = LETTER,
) -> bytes:
    """A PDF of `pages` vector pages in Helvetica, each with its own `text`, of one or more lines.

    `text` may name {page} and {pages}; `size` is in points. 600 pages take 4 ms and 175 KB.
    """
    contents = [_lines(text.format(page=page, pages=pages), size) for page in range(1, pages + 1)]
    return _pdf_of([_page(size, content) for content in contents])


def encrypted_pdf(password: str, *, pages: int = 1) -> bytes:
    """A PDF that opens with `password` only (AES-256)."""
    return _encrypted(pages, pikepdf.Encryption(owner="the owner's own", user=password))


def owner_protected_pdf(*, pages: int = 1) -> bytes:
    """A PDF that opens without a password, though changing it would need one."""
    return _encrypted(pages, pikepdf.Encryption(owner="the owner's own", user=""))


def pdf_with_sizes(*sizes: tuple[float, float]) -> bytes:
    """A PDF with one page of each size, in points, however absurd."""
    return _pdf_of([_page(size, _lines(f"Page {n}", size)) for n, size in enumerate(sizes, 1)])


def pdf_with_broken_page(*, pages: int = 3, broken: int = 1) -> bytes:
    """A PDF whose page at index `broken` cannot be loaded; the others are whole.

    Its entry in the page tree is a number, so that pdfium counts it and then finds no page.
    """
    made = [_page(LETTER, _lines(f"Page {n} of {pages}", LETTER)) for n in range(1, pages + 1)]
    made[broken] = (b"42", b"")
    return _pdf_of(made)


def pdf_with_bomb_page(*, pages: int = 3, bomb: int = 1, until: int | None = None) -> bytes:
    """A PDF whose page at index `bomb` wants more than 4 GiB, or all from there up to `until`."""
    made = [_page(LETTER, _lines(f"Page {n} of {pages}", LETTER)) for n in range(1, pages + 1)]
    for index in range(bomb, until or bomb + 1):
        made[index] = _page(LETTER, b"/F0 Do", resources=b"/XObject << /F0 4 0 R >>")
    return _pdf_of(made, extra=_nested_forms(first=4))


def form_bomb_pdf() -> bytes:
    """2 KB: form XObjects that each draw the next one ten times, wanting more than 4 GiB."""
    return pdf_with_bomb_page(pages=1, bomb=0)


def operator_bomb_pdf() -> bytes:
    """400 KB: one page of 200 MB of path operators, wanting 4 GiB and a minute."""
    block = b"1 1 m 9 9 l S\n" * 75_000
    page = _page(LETTER, _repeated(block, 200), filters=b"/FlateDecode")
    return _pdf_of([page])


def image_bomb_pdf() -> bytes:
    """5 KB: an image of 30,000 by 30,000 pixels, 2.7 GB, deflated twice."""
    side = 30_000
    samples = zlib.compress(_repeated(_MEBIBYTE, side * side * 3 // 1024**2 + 1))
    image = _stream(
        b"/Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB"
        b" /BitsPerComponent 8 /Filter [/FlateDecode /FlateDecode]" % (side, side),
        samples,
    )
    content = b"q 500 0 0 500 50 50 cm /Im0 Do Q"
    return _pdf_of([_page(LETTER, content, resources=b"/XObject << /Im0 4 0 R >>")], extra=[image])


def form_pdf(text: str = "Octavo 42") -> bytes:
    """An empty page with a form, into whose one field `text` is filled."""
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf(1, ""))) as document:
        page, names = document.pages[0], pikepdf.Name
        field = pikepdf.Dictionary(
            Type=names.Annot, Subtype=names.Widget, FT=names.Tx, T="name", V=text, F=4
        )
        field.Rect, field.DA = [72, 600, 540, 660], "/Helv 40 Tf 0 g"
        page.Annots = [document.make_indirect(field)]
        document.Root.AcroForm = pikepdf.Dictionary(
            Fields=page.Annots, NeedAppearances=True, DR=page.Resources
        )
        document.save(out)
    return out.getvalue()


def busy_pdf(*, pages: int) -> bytes:
    """A PDF whose every page wants a third of a second of CPU, which is allowed."""
    return _pdf_of([_page(LETTER, b"0 0 m 612 792 l 612 0 l f\n" * 150)] * pages)


def spinning_pdf(*, pages: int = 1) -> bytes:
    """A PDF whose every page wants minutes of CPU and no memory: a tile set billions of times."""
    tile = _stream(
        b"/Type /Pattern /PatternType 1 /PaintType 1 /TilingType 1 /BBox [0 0 1 1]"
        b" /XStep 0.01 /YStep 0.01 /Resources << >>",
        b"1 0 0 rg 0 0 1 1 re f",
    )
    content = b"/Pattern cs /P0 scn 0 0 612 792 re f"
    page = _page(LETTER, content, resources=b"/Pattern << /P0 4 0 R >>")
    return _pdf_of([page] * pages, extra=[tile])


# Images


def picture(text: str = "Octavo 42", *, size: tuple[int, int] = (480, 120)) -> Image.Image:
    """`text` in black on white, in RGB, from the left edge: of letters half as high as its line."""
    image = Image.new("RGB", size, "white")
    lines = text.count("\n") + 1
    font = ImageFont.load_default(size[1] // lines // 2)
    ImageDraw.Draw(image).multiline_text((size[1] // 8, size[1] // 8), text, "black", font=font)
    return image


def png(text: str = "Octavo 42", *, size: tuple[int, int] = (480, 120)) -> bytes:
    return saved(picture(text, size=size), "PNG")


def jpeg(text: str = "Octavo 42", *, size: tuple[int, int] = (480, 120)) -> bytes:
    return saved(picture(text, size=size), "JPEG", quality=95)


def bmp(text: str = "Octavo 42", *, size: tuple[int, int] = (480, 120)) -> bytes:
    return saved(picture(text, size=size), "BMP")


def tiff(*texts: str, size: tuple[int, int] = (480, 120)) -> bytes:
    """A TIFF with a page for each text, as a fax machine writes it: one bit a pixel, Group 4."""
    pages = [picture(text, size=size).convert("1") for text in texts or ("Octavo 42",)]
    return saved(pages[0], "TIFF", save_all=True, append_images=pages[1:], compression="group4")


def gif(*texts: str, size: tuple[int, int] = (480, 120)) -> bytes:
    """A GIF with a frame for each text."""
    frames = [picture(text, size=size) for text in texts or ("Octavo 42",)]
    return saved(frames[0], "GIF", save_all=True, append_images=frames[1:])


def webp(*texts: str, size: tuple[int, int] = (480, 120)) -> bytes:
    """A WebP with a frame for each text."""
    frames = [picture(text, size=size) for text in texts or ("Octavo 42",)]
    return saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


def heic() -> bytes:
    """A HEIC of 320 by 96 pixels that shows «Octavo HEIC»; nothing installed here could write it."""
    return base64.b64decode(_HEIC)


def rotated_jpeg(text: str = "Octavo 42", *, orientation: int = 6) -> bytes:
    """A JPEG as a phone held sideways takes it: lying, and EXIF says how to set it upright."""
    turns = {
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return saved(picture(text).transpose(turns[orientation]), "JPEG", quality=95, exif=exif)


def cmyk_jpeg(text: str = "Octavo 42") -> bytes:
    return saved(picture(text).convert("CMYK"), "JPEG", quality=95)


def transparent_png(text: str = "Octavo 42") -> bytes:
    """Black text on nothing, with an alpha channel; where it is transparent it is black too."""
    page = picture(text)
    black = Image.new("RGBA", page.size, (0, 0, 0, 0))
    black.putalpha(ImageOps.invert(page.convert("L")))
    return saved(black, "PNG")


def palette_png(text: str = "Octavo 42") -> bytes:
    """Eight colours, of which the paper's is transparent, and black underneath."""
    page = picture(text).convert("L").point(lambda level: level // 32)
    palette = page.convert("P")
    palette.putpalette([0, 0, 0] * 8)
    return saved(palette, "PNG", transparency=7)


def deep_png(text: str = "Octavo 42", *, white: int = 65_535) -> bytes:
    """A PNG of 16 bits a pixel; the paper is `white`, 4,095 for a scanner of 12 bits."""
    return saved(_deep(text, white).convert("I;16"), "PNG")


def deep_tiff(text: str = "Octavo 42", *, mode: str = "I;16", white: float = 65_535) -> bytes:
    """A TIFF of 16-bit (`I;16`, `I;16B`) or 32-bit (`I`) numbers, or of floats (`F`)."""
    if mode == "F":
        grey = picture(text).convert("L").convert("F").point(lambda level: level * (white / 255))
    else:
        grey = _deep(text, white).convert(mode)
    return saved(grey, "TIFF")


def wide_png() -> bytes:
    """1 by 65,000 pixels, which Pillow opens."""
    return saved(Image.new("L", (1, 65_000), 255), "PNG")


@functools.cache
def huge_png() -> bytes:
    """50,000 by 50,000 pixels of one bit in 300 KB."""
    side = 50_000
    rows = _repeated(bytes(side // 8 + 1) * 500, side // 500)
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def truncated(document: bytes, *, kept: float = 0.6) -> bytes:
    """The first part of a document, as a broken upload leaves it."""
    return document[: int(len(document) * kept)]


def saved(image: Image.Image, file_format: str, **options: Any) -> bytes:
    """`image` as the bytes of a file."""
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def _deep(text: str, white: float) -> Image.Image:
    grey = picture(text).convert("L").convert("I")
    return grey.point(lambda level: level * (white / 255))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_HEIC = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVVtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAA"
    "AAAAAAAAACJpbG9jAAAAAERAAAEAAQAAAAABeQABAAAAAAAAAqYAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABo"
    "dmMxAAAAAA5waXRtAAAAAAABAAAA1WlwcnAAAAC2aXBjbwAAAHdodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEA"
    "GEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoAoIGFlupJKa5uAhoMCAAAAMgAAA"
    "AwCEYgABAAdEAcFysGJAAAAAE2NvbHJuY2x4AAEADQAGgAAAABRpc3BlAAAAAAAAAUAAAABgAAAAEHBpeGkAAAAAAwgI"
    "CAAAABdpcG1hAAAAAAAAAAEAAQSBAgMEAAACrm1kYXQAAAKiKAGvGUKpGGJ///ot3JAy9p+ijJi5Ky0Y9zicBguja8zt"
    "59tdp35auLGxnb1G4fcPmczeu0J10gwAcBct8ELdABps2W8ODKCZvTEP6Uth00wgH3buYttnMdJ0UYf51tanHj6vl4EK"
    "gmbd8WZS6Jyj67M4OFyc5UlcMa3Vmr08b/XfmYCn26H+tM2oa4tPCi8qwcdd0it0PIpY9qvdPgGpR9nLnnRpRfQojMQg"
    "afL0SOZobW1q1lOF/TXszgcifsCgp0O8JWV1iebu8tVOm3edj0Z508NllPSdpThI9oFMPFAjykDMbMySpPxzEi6hCQum"
    "sdXx070ZstYRuJBOIN2hU0bIniar7KiEzXMuaV9QsY36T0wZjqyQrPV7SrMo+Xd6227JnG2OWkg3Bgb3RQe+I/Iq484x"
    "xPKTcXduvHL6MxcocGaGbJzU64wSb8R9EhibYSbdFiqvkMWHIiHPkAr4Uodo9eXL5fL9WYro5T6gZVCu3GGJIOKW6pCa"
    "iPPGBEOeDE7UzNCeQ1TDCK+2cG23ni4yr+4dgiFvgys+PJikVjkNTtz+ritrRbKmJQHkwyYGerXUjYoYe6+s6QrMac8S"
    "oAOX0nlC4h+rvQQy/YGM8V+JI+CbO7ZJEIYQVaVa8YQetQ/+mo2DeApU9CQMfOuMcaVrU807o2mROel1JKDLpjZhIPSw"
    "HEGV23YTanv/fefpuOunJprR6+Jl4ca8LGG0ubwuAvyvJsyzveBczPrbvia5dO49YyBij8p8FhXZv5t98PcUAeqY+X7X"
    "3jikgjXZJSPPPw5Xe8O+EXC7tf6VpBeZp5FTosy+yy2Gm/qrzvE1SWmCl/IRbzTz48ok4fbV+0Gt5ATebeLI2mVlIfOa"
    "abhArI8o8scTBaT54EW0TzgOKtA="
)

# How a PDF is written


def _encrypted(pages: int, encryption: pikepdf.Encryption) -> bytes:
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(pdf(pages))) as document:
        document.save(out, encryption=encryption)
    return out.getvalue()


def _lines(text: str, size: tuple[float, float]) -> bytes:
    """The content stream that writes `text` from the upper left corner down, at 24 points."""
    shown = b" ".join(
        b"(%s) Tj T*" % line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)").encode()
        for line in text.split("\n")
    )
    return b"BT /Helv 24 Tf 30 TL 72 %d Td %s ET" % (max(size[1] - 96, 0), shown)


def _page(
    size: tuple[float, float], content: bytes, *, resources: bytes = b"", filters: bytes = b""
) -> tuple[bytes, bytes]:
    """A page's dictionary, with %d where its content's number goes, and its content stream."""
    box = b"%.4f %.4f" % size
    page = (
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 " + box + b"] /Contents %d 0 R"
        b" /Resources << /Font << /Helv 3 0 R >> " + resources + b" >> >>"
    )
    return page, _stream(b"/Filter " + filters if filters else b"", content)


def _pdf_of(pages: list[tuple[bytes, bytes]], *, extra: list[bytes] | None = None) -> bytes:
    """A PDF of `pages` from `_page`; `extra` are the objects from number 4 on."""
    extra = extra or []
    first = 4 + len(extra)
    kids = b" ".join(b"%d 0 R" % (first + 2 * n) for n in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Count %d /Kids [%s] >>" % (len(pages), kids),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        *extra,
    ]
    for n, (page, content) in enumerate(pages):
        objects.append(page % (first + 2 * n + 1) if b"%d" in page else page)
        objects.append(content or b"null")
    return _file_of(objects)


def _file_of(objects: list[bytes]) -> bytes:
    """A PDF file of `objects`, numbered from 1, the first its catalogue, with its table."""
    out = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, body in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    out += b"trailer\n<< /Size %d /Root 1 0 R >>\n" % (len(objects) + 1)
    out += b"startxref\n%d\n%%%%EOF\n" % table
    return bytes(out)


def _stream(entries: bytes, data: bytes) -> bytes:
    return b"<< %s /Length %d >>\nstream\n%s\nendstream" % (entries, len(data), data)


def _nested_forms(*, first: int, depth: int = 12, times: int = 10) -> list[bytes]:
    """Form XObjects, numbered from `first`, that each draw the next one `times` times."""
    forms = []
    for level in range(depth):
        entries = b"/Type /XObject /Subtype /Form /BBox [0 0 612 792]"
        if level == depth - 1:
            forms.append(_stream(entries, b"1 1 m 9 9 l S " * times))
            continue
        inner = b" /Resources << /XObject << /F0 %d 0 R >> >>" % (first + level + 1)
        forms.append(_stream(entries + inner, b"/F0 Do " * times))
    return forms


def _repeated(block: bytes, times: int) -> bytes:
    """`block` so often, deflated: what a bomb is made of, without deflating all of it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    once = compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)
    checksum = 1
    for _ in range(times):
        checksum = zlib.adler32(block, checksum)
    return b"\x78\x9c" + once * times + b"\x03\x00" + struct.pack(">I", checksum)
