"""The text of a page on standard output while it is read."""

from __future__ import annotations

from collections.abc import Iterable

from client.models import DocumentPage, PageEvent, PageText
from client.terminal import say, write_piece


def write(events: Iterable[PageEvent]) -> DocumentPage:
    """Write the text as it comes, and what is missing of it at the end; the page.

    What was written cannot be taken back: where the page is read anew, or stands otherwise than it
    was told, that is said on standard error.
    """
    written = ""
    for event in events:
        if isinstance(event, PageText):
            written += event.text
            write_piece(event.text)
        elif isinstance(event, DocumentPage):
            _end(event, written)
            return event
        else:
            written = ""
            write_piece("\n")
            say("The page is read anew; what was written so far is void.")
    raise AssertionError("the page itself is the last event")


def _end(page: DocumentPage, written: str) -> None:
    told = written.strip()
    is_as_told = page.markdown.startswith(told)
    rest = page.markdown[len(told) :].rstrip() if is_as_told else ""
    if told or rest:
        write_piece(f"{rest}\n")
    if page.error is not None:
        say(f"page {page.page}: {page.status}, {page.error.code}: {page.error.detail}")
    elif not is_as_told:
        say(f"page {page.page}: it stands otherwise than it was told; see the job's result")
