"""Which pages of a document a job is about: `1-3,5,8-`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shared.errors import InvalidOptions, InvalidPageRange

MAX_LENGTH = 1_000
"""Characters of a page range; bounded because a tenant writes it."""

_PART = re.compile(r"(?P<first>[1-9]\d{0,8})(?P<open>-(?P<last>[1-9]\d{0,8})?)?")


@dataclass(frozen=True)
class PageRange:
    """Closed intervals of page numbers from 1; a last page of None means to the end."""

    intervals: tuple[tuple[int, int | None], ...]

    @classmethod
    def parse(cls, text: str) -> PageRange:
        """The range that `text` writes; raises InvalidOptions where it is not one."""
        if len(text) > MAX_LENGTH:
            raise InvalidOptions(f"pages: at most {MAX_LENGTH} characters")
        return cls(tuple(_interval(part.strip()) for part in text.split(",")))

    def select(self, pages_total: int) -> list[int]:
        """The numbers of the chosen pages of a document of `pages_total`, in order, each once.

        Pages past the end are left out; raises InvalidPageRange where nothing is left.
        """
        chosen: set[int] = set()
        for first, last in self.intervals:
            chosen.update(range(first, min(last or pages_total, pages_total) + 1))
        if not chosen:
            raise InvalidPageRange(f"the document has {pages_total} pages")
        return sorted(chosen)

    def exceeds(self, pages_total: int) -> bool:
        """Whether some of the range lies past the end of a document of `pages_total`."""
        return any(max(first, last or first) > pages_total for first, last in self.intervals)


def _interval(part: str) -> tuple[int, int | None]:
    match = _PART.fullmatch(part)
    if match is None:
        raise InvalidOptions(f"pages: {part!r} is not a page or a range such as 1-3, 5 or 8-")
    first = int(match["first"])
    if match["open"] is None:
        return first, first
    last = int(match["last"]) if match["last"] else None
    if last is not None and last < first:
        raise InvalidOptions(f"pages: {part!r} ends before it begins")
    return first, last
