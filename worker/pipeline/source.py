"""Documents of a known type, opened and drawn as pixels: in the sandboxed child only.

Here hostile bytes are parsed. Whatever a decoder raises on them is DocumentInvalid, since no list
of its exceptions is ever complete; what it does to the process is for the sandbox to bear. Nothing
that a document asks for is followed: no script, action, attachment or address.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from typing import IO, NamedTuple, Protocol, cast

import pi_heif
import pypdfium2
import pypdfium2.raw as pdfium
from PIL import ExifTags, Image, UnidentifiedImageError

from shared.errors import DocumentEncrypted, DocumentInvalid, ImageDimensions, OctavoError
from shared.media import MediaType
from worker.pipeline.frames import Frames, frames_of_gif, frames_of_tiff
from worker.pipeline.limits import Limits
from worker.pipeline.user_unit import user_units

Canvas = Callable[[int, int], mmap]
"""Room for the pixels of a page image of that width and height, in RGB."""


class Drawn(NamedTuple):
    """What lies on a canvas: RGB, or where it is grey one byte a pixel."""

    width: int
    height: int
    is_grey: bool


class Source(Protocol):
    """An open document."""

    pages_total: int  # 0 where there are none; how many are allowed is for the caller to say

    def render(self, index: int, canvas: Canvas) -> Drawn:
        """Draw the page at `index`, from 0, on a `canvas` of its size.

        Raises DocumentInvalid, ImageDimensions or MemoryError; the other pages may still be good.
        """


def warm_up() -> None:
    """Load all that is loaded late, before a child is forked that may not read a library.

    The page that is drawn wants a font that nobody has, so that pdfium looks through the system's
    fonts now, and once.
    """
    warnings.simplefilter("ignore")  # of a decoder, on what a tenant wrote
    Image.preinit()
    for plugin in ("MpoImagePlugin", "TiffImagePlugin", "WebPImagePlugin"):
        importlib.import_module(f"PIL.{plugin}")
    pi_heif.register_heif_opener(
        decode_threads=1, thumbnails=False, depth_images=False, aux_images=False
    )
    with pypdfium2.PdfDocument(_WARM_UP_PDF) as document:
        document[0].render()


def open_source(
    content: mmap, media_type: MediaType, *, limits: Limits, password: str | None
) -> Source:
    """The document of these bytes, by the decoder of its type and no other.

    Raises DocumentInvalid, DocumentEncrypted or MemoryError; ImageDimensions where its only page is
    an image that is not allowed.
    """
    with _decoding():
        if media_type is MediaType.PDF:
            return PdfSource(content, limits, password)
        return ImageSource(content, media_type, limits)


@contextmanager
def _decoding() -> Iterator[None]:
    try:
        yield
    except (OctavoError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise ImageDimensions(str(error)) from error
    except Exception as error:
        raise DocumentInvalid(f"{type(error).__name__}: {error}") from error


# PDF

_POINTS_PER_INCH = 72
_NO_ERROR, _BAD_PASSWORD = 0, 4  # FPDF_ERR_SUCCESS, FPDF_ERR_PASSWORD

_WARM_UP_PDF = b"""%PDF-1.7
1 0 obj << /Type /Catalog /Pages 2 0 R >> endobj
2 0 obj << /Type /Pages /Count 1 /Kids [3 0 R] >> endobj
3 0 obj << /Type /Page /Parent 2 0 R /MediaBox [0 0 72 72] /Contents 5 0 R
  /Resources << /Font << /F 4 0 R >> >> >> endobj
4 0 obj << /Type /Font /Subtype /TrueType /BaseFont /Nobodys >> endobj
5 0 obj << /Length 34 >> stream
BT /F 12 Tf 9 9 Td (Octavo) Tj ET
endstream endobj
trailer << /Size 6 /Root 1 0 R >>
"""


class PdfSource:
    """A PDF. Annotations and what is filled into its form are drawn; no script of it is run."""

    def __init__(self, content: mmap, limits: Limits, password: str | None) -> None:
        self._limits = limits
        self._content = content
        self._units: list[float] | None = None
        whole = (ctypes.c_ubyte * len(content)).from_buffer(content)
        try:
            self._document = pypdfium2.PdfDocument(whole, password=password)
        except pypdfium2.PdfiumError as error:
            if error.err_code == _BAD_PASSWORD:
                raise DocumentEncrypted from error
            if error.err_code == _NO_ERROR:
                raise DocumentInvalid("the document has no pages") from error
            raise
        with suppress(pypdfium2.PdfiumError):  # a broken form; the pages may be good
            self._document.init_forms()
        self.pages_total = len(self._document)

    def render(self, index: int, canvas: Canvas) -> Drawn:
        """Draw a page at `render_dpi`, or smaller where it would be larger than is allowed."""
        with _decoding():
            page = self._document[index]
            try:
                width, height = page.get_size()
                unit = self._unit(index)
                size = _pixels((width * unit, height * unit), self._limits)
                self._limits.check_dimensions(*size)
                with canvas(*size) as pixels:
                    _draw(page, size, pixels)
            finally:
                page.close()
        return Drawn(*size, is_grey=False)

    def _unit(self, index: int) -> float:
        """How many points a unit of the page is."""
        if self._units is None:
            self._units = user_units(self._content, self.pages_total)
        return self._units[index] if self._units else 1.0


def _pixels(points: tuple[float, float], limits: Limits) -> tuple[int, int]:
    """The size of the page image of a page of that width and height."""
    width, height = points
    if not (0 < width < math.inf and 0 < height < math.inf):
        raise ImageDimensions("the page has no area")
    scale = min(
        limits.render_dpi / _POINTS_PER_INCH,
        limits.max_side_pixels / max(points),
        math.sqrt(limits.max_page_pixels / (width * height)),
    )
    return max(1, int(width * scale)), max(1, int(height * scale))


def _draw(page: pypdfium2.PdfPage, size: tuple[int, int], pixels: mmap) -> None:
    """Draw `page` on white, straight into `pixels`."""
    bitmap = pypdfium2.PdfBitmap.new_native(
        *size,
        pdfium.FPDFBitmap_BGR,
        rev_byteorder=True,
        buffer=(ctypes.c_ubyte * len(pixels)).from_buffer(pixels),
    )
    bitmap.fill_rect((255, 255, 255, 255), 0, 0, *size)
    flags = pdfium.FPDF_ANNOT | pdfium.FPDF_REVERSE_BYTE_ORDER
    pdfium.FPDF_RenderPageBitmap(bitmap, page, 0, 0, *size, 0, flags)
    if page.formenv is not None:
        pdfium.FPDF_FFLDraw(page.formenv, bitmap, page, 0, 0, *size, 0, flags)
    bitmap.close()


# Images

_DECODERS = {
    MediaType.PNG: "PNG",
    MediaType.JPEG: "JPEG",
    MediaType.TIFF: "TIFF",
    MediaType.WEBP: "WEBP",
    MediaType.BMP: "BMP",
    MediaType.GIF: "GIF",
    MediaType.HEIC: "HEIF",
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What sets an image upright that has this EXIF orientation."""

_BAND_ROWS = 256


class ImageSource:
    """An image, or several in one file."""

    def __init__(self, content: mmap, media_type: MediaType, limits: Limits) -> None:
        self._limits = limits
        # Pillow refuses more than twice this, in some decoders before they allocate
        Image.MAX_IMAGE_PIXELS = math.ceil(limits.max_page_pixels / 2)
        try:
            self._image = Image.open(
                cast("IO[bytes]", _File(content)), formats=[_DECODERS[media_type]]
            )
        except UnidentifiedImageError as error:
            raise DocumentInvalid(f"it cannot be read as {media_type}") from error
        self._frames = _frames(self._image, content, media_type, limits)
        self.pages_total = self._frames.total
        if self.pages_total == 1:
            limits.check_dimensions(*self._image.size)

    def render(self, index: int, canvas: Canvas) -> Drawn:
        """Decode a page in its own size, upright. Half a page is DocumentInvalid."""
        with _decoding():
            if index >= self._frames.whole:
                raise DocumentInvalid("the file ends before this page does")
            self._image.seek(index)
            self._limits.check_dimensions(*self._image.size)
            self._image.load()
            page = _upright(_plain(self._image), self._image.getexif().get(_ORIENTATION))
            with canvas(*page.size) as pixels:
                _copy(page, pixels)
        return Drawn(*page.size, is_grey=page.mode == "L")


def _frames(image: Image.Image, content: mmap, media_type: MediaType, limits: Limits) -> Frames:
    """Its pages. A phone's JPEG or HEIC holds previews and depths of its only page too."""
    match media_type:
        case MediaType.GIF:
            return frames_of_gif(content, limits.max_pages)
        case MediaType.TIFF:
            return frames_of_tiff(content, limits.max_pages)
        case MediaType.WEBP:
            total = getattr(image, "n_frames", 1)
            return Frames(total, total)
        case _:
            return Frames(1, 1)


class _File:
    """Bytes as Pillow reads a file, without the system calls of one."""

    def __init__(self, content: mmap) -> None:
        self._content = content
        self._position = 0

    def read(self, size: int = -1) -> bytes:
        start = self._position
        end = len(self._content) if size < 0 else min(start + size, len(self._content))
        self._position = max(start, end)
        return self._content[start:end]

    def seek(self, offset: int, whence: int = 0) -> int:
        origin = (0, self._position, len(self._content))[whence]
        if origin + offset < 0:
            raise ValueError("a place before the file")
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def getvalue(self) -> memoryview:
        """What libtiff decodes from, which does without a copy."""
        return memoryview(self._content)


_ORIENTATION = ExifTags.Base.Orientation


def _upright(image: Image.Image, orientation: object) -> Image.Image:
    turn = _TURNS.get(orientation) if isinstance(orientation, int) else None
    return image if turn is None else image.transpose(turn)


def _plain(image: Image.Image) -> Image.Image:
    """`image` in 8 bits of grey, or of red, green and blue where any pixel has a colour.

    Transparent parts are on white. Grey takes half the time from here on, and shows the same.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        return _levelled(image)
    if image.has_transparency_data:
        image = _on_white(image)
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image.getchannel("R") if _is_grey(image) else image


def _is_grey(image: Image.Image) -> bool:
    """Whether no pixel of an RGB image has a colour."""
    channels = (map(Image.Image.tobytes, band.split()) for band in _bands(image))
    return all(red == green == blue for red, green, blue in channels)


def _on_white(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    page = Image.new("RGB", image.size, "white")
    page.paste(image, mask=image)
    return page


def _levelled(image: Image.Image) -> Image.Image:
    """Grey of 16 or 32 bits, or of floats, in 8 bits.

    A pixel does not say how many bits were meant, so white is the largest number of as many bits
    as the brightest pixel needs, and at least 8; in floats up to 1.0, it is 1.0.
    """
    if image.mode not in ("I", "F"):
        image = image.convert("I")  # from 16 bits, of either order
    low, high = (float(level) for level in image.getextrema())  # type: ignore[arg-type]
    black = min(low, 0.0)
    white = 1.0 if image.mode == "F" and high <= 1 else 2.0 ** max(8, int(high).bit_length()) - 1
    scale = 255 / (white - black)
    return image.point(lambda level: level * scale - black * scale).convert("L")


def _copy(image: Image.Image, pixels: mmap) -> None:
    """Write `image` into `pixels`."""
    start = 0
    for band in _bands(image):
        rows = band.tobytes()
        pixels[start : start + len(rows)] = rows
        start += len(rows)


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    """Some rows of `image` at a time: all at once would be a copy."""
    for top in range(0, image.height, _BAND_ROWS):
        yield image.crop((0, top, image.width, min(top + _BAND_ROWS, image.height)))
