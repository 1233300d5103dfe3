"""What opening and rendering one document may take; the same numbers on both sides of the sandbox."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import ImageDimensions

if TYPE_CHECKING:  # a child has these limits, and no settings
    from shared.config import Settings

BYTES_PER_PIXEL = 3
"""Red, green and blue, eight bits each; rows follow each other without padding. Grey takes one."""

MESSAGE_BYTES = 16 * 1024
"""The longest message between any two processes of the sandbox."""

DETAIL_CHARACTERS = 300
"""The longest text that a child may say of an error."""

PAGES_PER_CHILD = 50
"""A child is replaced after so many pages: what a parser keeps between pages stays small."""


@dataclass(frozen=True)
class Limits:
    """The limits of one document. Sides and areas are in pixels of the page image."""

    max_pages: int
    max_page_pixels: int
    max_side_pixels: int
    min_side_pixels: int
    max_side_ratio: int
    render_dpi: int
    memory_bytes: int  # address space of a child, over the size of the document, which it maps
    page_seconds: float  # of CPU for opening and for each page

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that an operator has set."""
        return cls(
            max_pages=settings.max_pages,
            max_page_pixels=settings.max_page_pixels,
            max_side_pixels=settings.max_side_pixels,
            min_side_pixels=settings.min_side_pixels,
            max_side_ratio=settings.max_side_ratio,
            render_dpi=settings.render_dpi,
            memory_bytes=settings.render_memory_bytes,
            page_seconds=settings.render_page_seconds,
        )

    @property
    def answer_seconds(self) -> float:
        """How long, by the clock, a child may take for one answer: 14 s where it has 10 of CPU."""
        return 1.4 * self.page_seconds

    def check_dimensions(self, width: int, height: int) -> None:
        """Raise ImageDimensions where a page image of this size is not allowed."""
        short, long = sorted((width, height))
        if width * height > self.max_page_pixels or long > self.max_side_pixels:
            rule = f"{self.max_page_pixels} pixels and {self.max_side_pixels} a side are allowed"
        elif short < self.min_side_pixels:
            rule = f"a side has at least {self.min_side_pixels} pixels"
        elif long > short * self.max_side_ratio:
            rule = f"the long side is at most {self.max_side_ratio} times the short one"
        else:
            return
        raise ImageDimensions(f"{width} by {height} pixels; {rule}")
