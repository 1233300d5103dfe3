"""The formats a result is written in."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """A format of a result, as `?format=` names it."""

    MARKDOWN = "markdown"
    TEXT = "text"
    JSON = "json"

    @property
    def extension(self) -> str:
        """What a file of this format is called at the end."""
        return {"markdown": "md", "text": "txt", "json": "json"}[self]

    @property
    def media_type(self) -> str:
        """What HTTP calls it."""
        return {
            "markdown": "text/markdown; charset=utf-8",
            "text": "text/plain; charset=utf-8",
            "json": "application/json",
        }[self]
