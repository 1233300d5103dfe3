"""A document as JSON: `shared.document.Document`, written a page at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shared.document import DocumentHeading, DocumentPage


def pieces(heading: DocumentHeading, pages: Iterable[DocumentPage]) -> Iterator[str]:
    """The text of the file, in pieces."""
    yield heading.model_dump_json(by_alias=True)[:-1] + ',"pages":['
    comma = ""
    for page in pages:
        yield comma + page.model_dump_json()
        comma = ","
    yield "]}"
