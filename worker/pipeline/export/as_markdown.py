"""A document as markdown: each page after a comment with its number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from shared.document import DocumentHeading, DocumentPage


def pieces(_: DocumentHeading, pages: Iterable[DocumentPage]) -> Iterator[str]:
    """The text of the file, in pieces."""
    for page in pages:
        if page.error is not None:
            yield f"<!-- page {page.page}: {page.error.code} -->\n\n"
        else:
            yield f"<!-- page {page.page} -->\n\n{page.markdown.strip()}\n\n"
