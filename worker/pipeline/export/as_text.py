"""A document as plain text: pages separated by a form feed, a page that failed being empty."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shared.document import DocumentHeading, DocumentPage


def pieces(_: DocumentHeading, pages: Iterable[DocumentPage]) -> Iterator[str]:
    """The text of the file, in pieces."""
    separator = ""
    for page in pages:
        yield separator + page.text.strip() + "\n"
        separator = "\f"
