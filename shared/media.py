"""The document types that Octavo reads, told by their first bytes and never by name.

The gateway refuses what is none of them; the sandboxed child opens a document with the decoder of
its type and no other, so that magic and decoder agree.
"""

from enum import StrEnum

SNIFF_BYTES = 1024
"""How many first bytes `sniff` wants. A PDF may begin with that much of something else."""

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}


class MediaType(StrEnum):
    """A type of document, by its registered name."""

    PDF = "application/pdf"
    PNG = "image/png"
    JPEG = "image/jpeg"
    TIFF = "image/tiff"
    WEBP = "image/webp"
    BMP = "image/bmp"
    GIF = "image/gif"
    HEIC = "image/heic"


def sniff(head: bytes) -> MediaType | None:
    """The type of the document that begins with `head`, or None where it is not one we read."""
    for media_type, magics in _MAGIC.items():
        if head.startswith(magics):
            return media_type
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return MediaType.WEBP
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return MediaType.HEIC
    if b"%PDF-" in head[:SNIFF_BYTES]:
        return MediaType.PDF
    return None


_MAGIC: dict[MediaType, tuple[bytes, ...]] = {
    MediaType.PNG: (b"\x89PNG\r\n\x1a\n",),
    MediaType.JPEG: (b"\xff\xd8\xff",),
    MediaType.TIFF: (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"),
    MediaType.BMP: (b"BM",),
    MediaType.GIF: (b"GIF87a", b"GIF89a"),
}
