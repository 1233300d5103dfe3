"""What becomes of each kind of document, good, odd and hostile, on its way to page images."""

from __future__ import annotations

import io
import math
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pikepdf
import pytest
from PIL import Image, ImageColor

from shared.config import Settings
from shared.errors import (
    DocumentEncrypted,
    DocumentInvalid,
    DocumentTooExpensive,
    ImageDimensions,
    OctavoError,
    TooManyPages,
)
from shared.media import MediaType, sniff
from tests import documents
from worker.pipeline.render import Document, Limits, PageImage, open_document

LIMITS = Limits(
    max_pages=700,
    max_page_pixels=40_000_000,
    max_side_pixels=20_000,
    min_side_pixels=16,
    max_side_ratio=100,
    render_dpi=150,
    memory_bytes=1024**3,
    page_seconds=10,
)
SMALL = replace(LIMITS, memory_bytes=160 * 1024**2)
"""A bomb finds the end of this sooner; a page takes some 70 MB."""


def opened(
    document: bytes,
    media_type: MediaType | None = None,
    *,
    limits: Limits = LIMITS,
    password: str | None = None,
) -> Document:
    media_type = media_type or sniff(document)
    assert media_type is not None
    with documents.file_of(document) as file:
        return open_document(file, media_type, limits=limits, password=password)


def pages_of(document: bytes, media_type: MediaType | None = None) -> list[PageImage]:
    with opened(document, media_type) as source:
        return [source.render(index) for index in range(source.pages_total)]


def grey(page: PageImage) -> Image.Image:
    return Image.open(io.BytesIO(page.jpeg), formats=["JPEG"]).convert("L")


def difference(page: PageImage, text: str = "Octavo 42") -> float:
    """The mean difference, in grey levels, between the page and the picture of `text`."""
    expected = documents.picture(text, size=(page.width, page.height)).convert("L")
    pairs = zip(grey(page).tobytes(), expected.tobytes(), strict=True)
    return sum(abs(is_ - ought) for is_, ought in pairs) / (page.width * page.height)


def ink(page: PageImage) -> float:
    """The part of the page that is dark."""
    return sum(grey(page).histogram()[:96]) / (page.width * page.height)


# Good documents


IMAGES: dict[str, Callable[[], bytes]] = {
    "PNG": documents.png,
    "JPEG": documents.jpeg,
    "BMP": documents.bmp,
    "TIFF of one bit": documents.tiff,
    "GIF": documents.gif,
    "WebP": documents.webp,
    "turned to the left": partial(documents.rotated_jpeg, orientation=6),
    "upside down": partial(documents.rotated_jpeg, orientation=3),
    "turned to the right": partial(documents.rotated_jpeg, orientation=8),
    "CMYK": documents.cmyk_jpeg,
    "alpha channel": documents.transparent_png,
    "transparent palette": documents.palette_png,
    "PNG of 16 bits": documents.deep_png,
    "12 bits in 16": partial(documents.deep_png, white=4_095),
    "TIFF of 16 bits": documents.deep_tiff,
    "16 bits, big end first": partial(documents.deep_tiff, mode="I;16B"),
    "16 bits in 32": partial(documents.deep_tiff, mode="I"),
    "floats to 1": partial(documents.deep_tiff, mode="F", white=1.0),
    "floats to 255": partial(documents.deep_tiff, mode="F", white=255),
    "floats to 65535": partial(documents.deep_tiff, mode="F", white=65_535),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_of_any_kind_shows_what_was_drawn(kind: str) -> None:
    [page] = pages_of(IMAGES[kind]())

    assert (page.width, page.height) == (480, 120)
    assert difference(page) < 4


def saved(image: Image.Image) -> bytes:
    image.save(out := io.BytesIO(), "PNG")
    return out.getvalue()


@pytest.mark.parametrize("colour", ["red", "yellow"])
def test_an_image_that_has_a_colour_anywhere_keeps_it(colour: str) -> None:
    image = Image.new("RGB", (300, 700), "white")
    image.paste(colour, (200, 600, 300, 700))

    [page] = pages_of(saved(image))

    shown = Image.open(io.BytesIO(page.jpeg))
    assert shown.mode == "RGB"
    pixels = zip(shown.getpixel((250, 650)), ImageColor.getrgb(colour), strict=True)  # type: ignore[arg-type]
    assert all(abs(is_ - ought) < 16 for is_, ought in pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_an_image_without_a_colour_has_one_channel_and_the_same_pixels(mode: str) -> None:
    image = documents.picture("Octavo 42", size=(480, 120)).convert(mode)
    image.save(out := io.BytesIO(), "TIFF" if mode == "CMYK" else "PNG")

    [page] = pages_of(out.getvalue())

    shown = Image.open(io.BytesIO(page.jpeg))
    assert shown.mode == "L"
    image.convert("RGB").save(coloured := io.BytesIO(), "JPEG", quality=92)
    assert shown.convert("RGB").tobytes() == Image.open(coloured).tobytes()


def test_an_image_of_many_rows_is_read_to_its_end() -> None:
    text = "\n".join("abcdefg")

    [page] = pages_of(documents.png(text, size=(480, 1_500)))

    assert difference(page, text) < 4


def test_a_heic_image_is_read() -> None:
    [page] = pages_of(documents.heic())

    assert (page.width, page.height) == (320, 96)
    assert 0.03 < ink(page) < 0.1


@pytest.mark.parametrize("make", [documents.tiff, documents.gif, documents.webp])
def test_the_frames_of_an_image_are_pages(make: Callable[..., bytes]) -> None:
    texts = ["one", "two and two", "three"]

    pages = pages_of(make(*texts))

    assert len(pages) == 3
    assert all(difference(page, text) < 4 for page, text in zip(pages, texts, strict=True))


def test_pages_of_a_pdf_are_rendered_at_the_dpi_of_the_settings() -> None:
    with opened(documents.pdf(2), limits=replace(LIMITS, render_dpi=72)) as source:
        page = source.render(1)

    assert source.pages_total == 2
    assert (page.width, page.height) == (612, 792)
    assert 0.001 < ink(page) < 0.1


def test_pages_may_be_asked_for_in_any_order_and_twice() -> None:
    with opened(documents.tiff("one", "two", "three")) as source:
        first, third, again = source.render(0), source.render(2), source.render(0)

    assert first == again
    assert first != third


def test_what_is_filled_into_a_form_is_drawn() -> None:
    [page] = pages_of(documents.form_pdf())

    assert ink(page) > 0.001


def test_a_page_larger_than_allowed_is_rendered_smaller() -> None:
    limits = replace(LIMITS, max_page_pixels=500_000, max_side_pixels=1_000)

    with opened(documents.pdf_with_sizes((1e6, 1e6), (1_000, 30_000)), limits=limits) as source:
        square, strip = source.render(0), source.render(1)

    assert (square.width, square.height) == (707, 707)
    assert (strip.width, strip.height) == (33, 1_000)


def with_units(*units: str) -> bytes:
    """A PDF of pages of 100 by 200 units, each as large as is said."""
    whole = documents.pdf(len(units), size=(100, 200))
    for unit in units:
        whole = whole.replace(b"/Type /Page /", b"/UserUnit %s /Type  /Page /" % unit.encode(), 1)
    return whole


def compressed(document: bytes) -> bytes:
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(document)) as opened_:
        opened_.save(out, object_stream_mode=pikepdf.ObjectStreamMode.generate)
    return out.getvalue()


@pytest.mark.parametrize("pack", [bytes, compressed])
def test_a_page_is_as_large_as_its_units_make_it(pack: Callable[[bytes], bytes]) -> None:
    document = pack(with_units("1", "2.5", "0.5"))

    with opened(document, limits=replace(LIMITS, render_dpi=72)) as source:
        widths = [source.render(index).width for index in range(3)]

    assert (b"/UserUnit" in document) is (pack is bytes)
    assert widths == [100, 250, 50]


def test_units_do_not_go_beyond_the_caps() -> None:
    with opened(with_units("1000000", "0.000001", "0")) as source:
        assert source.render(0).height in range(8_900, 9_000)
        for index in (1, 2):
            with pytest.raises(ImageDimensions):
                source.render(index)


@pytest.mark.parametrize("unit", ["(a)", "/X", "null", "-3", "[2]", "."])
def test_units_that_are_none_are_points(unit: str) -> None:
    with opened(with_units(unit), limits=replace(LIMITS, render_dpi=72)) as source:
        assert source.render(0).width == 100


def test_an_image_at_the_caps_is_read_and_one_past_a_cap_is_refused() -> None:
    limits = replace(
        LIMITS, max_page_pixels=3_201, max_side_pixels=100, min_side_pixels=20, max_side_ratio=4
    )
    allowed = [(97, 33), (20, 80), (32, 100)]
    refused = [(98, 33), (19, 70), (20, 81), (31, 101)]

    for size in allowed:
        limits.check_dimensions(*size)
        opened(documents.png(size=size), limits=limits).close()
    for size in refused:
        with pytest.raises(ImageDimensions):
            limits.check_dimensions(*size)
        with pytest.raises(ImageDimensions):
            opened(documents.png(size=size), limits=limits)


def test_six_hundred_pages_cost_the_worker_no_memory() -> None:
    with opened(documents.pdf(600)) as source:
        source.render(0)
        before = _resident_bytes()
        for index in range(1, 600, 4):
            source.render(index)
        after = _resident_bytes()

    assert source.pages_total == 600
    assert after - before < 16 * 1024**2


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * 4096


def test_the_file_is_left_where_it_was() -> None:
    with documents.file_of(documents.png()) as file:
        file.seek(5)
        with open_document(file.fileno(), MediaType.PNG, limits=LIMITS) as source:
            source.render(0)

        assert file.tell() == 5


def test_a_page_image_carries_no_metadata() -> None:
    exif = Image.Exif()
    exif[0x010F] = "A camera that knows where it is"
    photo = documents.saved(documents.picture(), "JPEG", exif=exif)

    [page] = pages_of(photo)

    assert b"camera" in photo
    assert b"camera" not in page.jpeg


# Passwords


def test_an_encrypted_pdf_opens_with_its_password() -> None:
    with opened(documents.encrypted_pdf("Geheimnis №1"), password="Geheimnis №1") as source:
        assert ink(source.render(0)) > 0


@pytest.mark.parametrize("password", [None, "", "wrong", "x" * 50_000])
def test_an_encrypted_pdf_without_its_password_is_refused(password: str | None) -> None:
    with pytest.raises(DocumentEncrypted):
        opened(documents.encrypted_pdf("right"), password=password)


def test_a_pdf_that_only_its_owner_may_change_opens() -> None:
    assert len(pages_of(documents.owner_protected_pdf())) == 1


# Broken documents


@pytest.mark.parametrize("kept", [0.95, 0.6, 0.3])
@pytest.mark.parametrize(
    "make",
    [
        documents.png,
        documents.jpeg,
        documents.bmp,
        documents.tiff,
        documents.gif,
        documents.webp,
        documents.heic,
    ],
)
def test_half_an_image_is_no_page(make: Callable[[], bytes], kept: float) -> None:
    with pytest.raises(DocumentInvalid):
        pages_of(documents.truncated(make(), kept=kept))


@pytest.mark.parametrize("kept", [place / 40 for place in range(8, 40)])
def test_an_animation_that_is_cut_off_loses_no_frame_without_a_word(kept: float) -> None:
    whole = documents.gif("one", "two", "three", "four")

    with opened(documents.truncated(whole, kept=kept)) as source, pytest.raises(DocumentInvalid):
        for index in range(source.pages_total):
            source.render(index)


def test_a_gif_without_its_last_byte_has_a_page_that_may_have_been() -> None:
    with opened(documents.gif("one", "two")[:-1]) as source:
        assert source.pages_total == 3
        assert difference(source.render(1), "two") < 4
        with pytest.raises(DocumentInvalid, match="ends before"):
            source.render(2)


def test_half_a_pdf_is_no_document() -> None:
    with pytest.raises(DocumentInvalid):
        opened(documents.truncated(documents.pdf()))


def test_a_pdf_without_pages_is_no_document() -> None:
    with pytest.raises(DocumentInvalid, match="no pages"):
        opened(documents.pdf(0))


@pytest.mark.parametrize("media_type", list(MediaType))
def test_a_file_without_bytes_is_no_document(media_type: MediaType) -> None:
    with pytest.raises(DocumentInvalid):
        opened(b"", media_type)


@pytest.mark.parametrize("media_type", sorted(set(MediaType) - {MediaType.PNG}))
def test_a_document_is_opened_by_the_decoder_of_its_type_only(media_type: MediaType) -> None:
    with pytest.raises(DocumentInvalid):
        opened(documents.png(), media_type)


def test_a_page_that_cannot_be_loaded_leaves_the_others_readable() -> None:
    with opened(documents.pdf_with_broken_page(pages=3, broken=1)) as source:
        source.render(0)
        with pytest.raises(DocumentInvalid):
            source.render(1)
        source.render(2)


def test_a_broken_frame_leaves_the_ones_before_it_readable() -> None:
    with opened(documents.truncated(documents.gif("one", "two", "three"), kept=0.9)) as source:
        source.render(0)
        with pytest.raises(DocumentInvalid):
            source.render(2)


def test_an_index_that_the_document_does_not_have_is_the_callers_mistake() -> None:
    with opened(documents.pdf(2)) as source:
        for index in (-1, 2):
            with pytest.raises(IndexError):
                source.render(index)


# Hostile documents


ABSURD_IMAGES: dict[str, Callable[[], bytes]] = {
    "wide": documents.wide_png,
    "huge": documents.huge_png,
    "small": partial(documents.png, size=(15, 15)),
    "more than WebP's decoder could take": partial(documents.webp, size=(16_383, 2_500)),
}


@pytest.mark.parametrize("kind", ABSURD_IMAGES)
def test_an_image_of_an_absurd_size_is_refused_before_it_is_decoded(kind: str) -> None:
    document = ABSURD_IMAGES[kind]()
    began = time.monotonic()

    with pytest.raises(ImageDimensions):
        opened(document, limits=SMALL)

    assert time.monotonic() - began < 10


def test_a_frame_of_an_absurd_size_leaves_the_others_readable() -> None:
    narrow = Image.new("L", (10, 4_000))
    album = documents.saved(narrow, "TIFF", save_all=True, append_images=[documents.picture()])

    with opened(album) as source:
        with pytest.raises(ImageDimensions):
            source.render(0)
        assert difference(source.render(1)) < 4


@pytest.mark.parametrize("size", [(0.001, 65_000), (5, 5), (72, 72 * 101)])
def test_a_page_of_an_absurd_size_is_refused(size: tuple[float, float]) -> None:
    with opened(documents.pdf_with_sizes(size, documents.LETTER)) as source:
        with pytest.raises(ImageDimensions):
            source.render(0)
        source.render(1)


def test_a_document_may_have_so_many_pages_and_no_more() -> None:
    limits = replace(LIMITS, max_pages=3)

    opened(documents.pdf(3), limits=limits).close()
    for document in (documents.pdf(4), documents.tiff(*"abcd"), documents.pdf(100_000)):
        with pytest.raises(TooManyPages):
            opened(document, limits=limits)


@pytest.mark.parametrize("count", [b"2147483647", b"-5"])
def test_a_pdf_that_lies_about_its_pages_is_counted(count: bytes) -> None:
    document = documents.pdf(3).replace(b"/Count 3", b"/Count " + count)

    assert len(pages_of(document)) == 3


@pytest.mark.parametrize("make", [documents.form_bomb_pdf, documents.operator_bomb_pdf])
def test_a_bomb_ends_its_child_and_not_the_worker(make: Callable[[], bytes]) -> None:
    began = time.monotonic()

    with opened(make()) as source, pytest.raises(DocumentTooExpensive):
        source.render(0)

    assert time.monotonic() - began < 15
    assert len(pages_of(documents.pdf(1))) == 1


def test_an_image_deflated_twice_does_not_get_the_memory_that_it_asks_for() -> None:
    with opened(documents.image_bomb_pdf(), limits=SMALL) as source:
        began = time.monotonic()
        with suppress(DocumentTooExpensive):
            source.render(0)

    assert time.monotonic() - began < 15


def test_a_page_that_computes_for_ever_is_ended() -> None:
    limits = replace(LIMITS, page_seconds=1)
    began = time.monotonic()

    with (
        opened(documents.spinning_pdf(), limits=limits) as source,
        pytest.raises(DocumentTooExpensive),
    ):
        source.render(0)

    assert time.monotonic() - began < 5


def test_each_page_has_the_cpu_time_of_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limits, "answer_seconds", 60)  # the machine may be slow
    with opened(documents.busy_pdf(pages=8), limits=replace(LIMITS, page_seconds=2)) as source:
        for index in range(8):
            source.render(index)


def test_the_pages_beside_a_bomb_are_readable() -> None:
    with opened(documents.pdf_with_bomb_page(pages=3, bomb=1), limits=SMALL) as source:
        source.render(0)
        with pytest.raises(DocumentTooExpensive):
            source.render(1)
        source.render(2)


def test_a_document_of_bombs_gets_three_children_and_no_more() -> None:
    bombs = documents.pdf_with_bomb_page(pages=5, bomb=0, until=3)
    with opened(bombs, limits=SMALL) as source:
        for index in range(3):
            with pytest.raises(DocumentTooExpensive):
                source.render(index)

        with pytest.raises(DocumentTooExpensive, match="3 pages"):
            source.render(4)


def test_any_damage_to_an_image_is_an_error_with_a_name() -> None:
    for make in (documents.png, documents.jpeg, documents.tiff, documents.gif, documents.webp):
        whole = make()
        for place in range(8, len(whole), math.ceil(len(whole) / 12)):
            damaged = whole[:place] + b"\xff" * 8 + whole[place + 8 :]
            with suppress(OctavoError):
                pages_of(damaged, sniff(whole))


# The worker


def test_the_limits_are_those_of_the_settings() -> None:
    settings = Settings.model_construct(render_dpi=99, render_memory_bytes=7)

    limits = Limits.of(settings)

    assert (limits.render_dpi, limits.memory_bytes) == (99, 7)


@pytest.mark.parametrize("module", ["worker.pipeline.render", "worker.pipeline.sandbox"])
def test_the_worker_has_no_pdf_parser(module: str) -> None:
    program = (
        f"import sys, {module}; print([m for m in sys.modules if 'pdfium' in m or 'heif' in m])"
    )

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)

    assert said.stdout.strip() == b"[]"
