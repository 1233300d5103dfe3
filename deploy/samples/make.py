"""Makes the sample documents and the truth beside each, from `texts.py`.

    make samples

Five documents that together ask for most of what the platform can do: a vector PDF of three pages
in four languages with tables, a crooked noisy scan, a page scanned upside down, a fax of two
pages, and a clean receipt. The truth of NAME.* is NAME.txt, its pages separated by a form feed.

Wants `typst`, which carries the Latin fonts (Libertinus Serif, DejaVu Sans Mono), and
`pylopdf-fonts-zh-cn`, which carries the Chinese one (Noto Serif SC). The fonts' licences (the SIL
Open Font License, and that of Bitstream Vera) let documents embed them. Neither package is
installed with the platform: the documents are in the repository, and made again only to change
them. On the versions that the Makefile names, the same texts give the same bytes.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from PIL import Image

from deploy.samples import degrade, texts, typeset
from deploy.samples.typeset import Style

SAMPLES = Path(__file__).parent
SEED = 8

PROSE = Style()
OFFICE = Style(font="DejaVu Sans Mono", size=9.5, justified=False)
ROLL = Style("width: 80mm, height: auto, margin: 5mm", "DejaVu Sans Mono", 8, justified=False)

SCAN_DPI = 150
FAX_DPI = 200  # a fax in its fine mode, nearly


def main() -> None:
    """Write all documents and truths beside this file."""
    (SAMPLES / "octavo.pdf").write_bytes(typeset.pdf(texts.OCTAVO, PROSE))
    _write_truth("octavo", texts.OCTAVO)
    _make_scan()
    _make_rotated()
    _make_fax()
    _make_receipt()


def _make_scan() -> None:
    [page] = typeset.images((texts.SCAN,), PROSE, dpi=SCAN_DPI)
    page = degrade.blurred(degrade.turned(page, 0.8), 0.8)
    page = degrade.noisy(page, 0.12, Random(SEED))  # noqa: S311 - noise, no secret
    page.save(SAMPLES / "scan.jpg", quality=45, dpi=(SCAN_DPI, SCAN_DPI))
    _write_truth("scan", (texts.SCAN,))


def _make_rotated() -> None:
    [page] = typeset.images((texts.ROTATED,), PROSE, dpi=SCAN_DPI)
    page = page.transpose(Image.Transpose.ROTATE_180).quantize(16)  # 16 greys are plenty for type
    page.save(SAMPLES / "rotated.png", optimize=True, dpi=(SCAN_DPI, SCAN_DPI))
    _write_truth("rotated", (texts.ROTATED,))


def _make_fax() -> None:
    chance = Random(SEED)  # noqa: S311 - noise, no secret
    pages = typeset.images(texts.FAX, OFFICE, dpi=FAX_DPI)
    first, *others = [degrade.faxed(page, 0.0005, chance) for page in pages]
    first.save(
        SAMPLES / "fax.tiff",
        compression="group4",
        dpi=(FAX_DPI, FAX_DPI),
        save_all=True,
        append_images=others,
    )
    _write_truth("fax", texts.FAX)


def _make_receipt() -> None:
    [page] = typeset.images((texts.RECEIPT,), ROLL, dpi=FAX_DPI)
    page.quantize(16).save(SAMPLES / "receipt.png", optimize=True, dpi=(FAX_DPI, FAX_DPI))
    _write_truth("receipt", (texts.RECEIPT,))


def _write_truth(name: str, pages: tuple[texts.Page, ...]) -> None:
    (SAMPLES / f"{name}.txt").write_text(texts.truth(pages), encoding="utf-8")


if __name__ == "__main__":
    main()
