"""Pages of blocks as Typst source, as a PDF and as images."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path

import pylopdf_fonts_zh_cn  # type: ignore[import-not-found]  # of `make samples` alone
import typst  # type: ignore[import-not-found]  # of `make samples` alone
from PIL import Image

from deploy.samples.texts import Block, Heading, Page, Paragraph, Table

FONTS = Path(pylopdf_fonts_zh_cn.__file__).parent


@dataclass(frozen=True)
class Style:
    """The look of a document: Typst's paper arguments, fonts, and the size of type in points."""

    paper: str = 'paper: "a4", margin: (x: 2.6cm, y: 2.4cm)'
    font: str = "Libertinus Serif"
    size: float = 11.5
    justified: bool = True


def pdf(pages: tuple[Page, ...], style: Style) -> bytes:
    """A PDF with its fonts embedded as subsets; the same pages give the same bytes."""
    result: bytes = typst.compile(_source(pages, style), font_paths=[FONTS], format="pdf")
    return result


def images(pages: tuple[Page, ...], style: Style, *, dpi: int) -> list[Image.Image]:
    """Each page as a grey image."""
    made = typst.compile(_source(pages, style), font_paths=[FONTS], format="png", ppi=dpi)
    encoded: list[bytes] = made if isinstance(made, list) else [made]
    return [Image.open(io.BytesIO(page)).convert("L") for page in encoded]


def _source(pages: tuple[Page, ...], style: Style) -> bytes:
    preamble = f"""
        #set document(date: none)
        #set page({style.paper})
        #set text(font: ("{style.font}", "Noto Serif SC"), size: {style.size}pt, hyphenate: false)
        #set par(justify: {str(style.justified).lower()}, leading: 0.72em, spacing: 1.1em)
        #show heading: set block(above: 1.4em, below: 0.9em)
    """
    bodies = ["\n".join(_markup(block) for block in page) for page in pages]
    return (preamble + "\n#pagebreak()\n".join(bodies)).encode()


def _markup(block: Block) -> str:
    match block:
        case Heading(text):
            return f"#heading({_string(text)})"
        case Paragraph(text, language):
            return f"#par(text(lang: {_string(language)}, {_string(text)}))"
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    columns = len(table.rows[0])
    cells = ", ".join(_string(cell) for row in table.rows for cell in row)
    ruled = len(table.rows), *([1] if table.has_head else [])
    lines = "".join(f"table.hline(y: {row}, stroke: 0.6pt), " for row in (0, *ruled))
    return (
        f"#block(width: 100%, table(columns: (1fr,) + (auto,) * {columns - 1}, stroke: none, "
        f"align: (x, y) => if x == 0 {{ left }} else {{ right }}, "
        f"inset: (x: 6pt, y: 5pt), {lines}{cells}))"
    )


def _string(text: str) -> str:
    """A Typst string literal; its escapes are among JSON's."""
    return json.dumps(text, ensure_ascii=False)
