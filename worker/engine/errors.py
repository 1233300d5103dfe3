"""How a reading ends when its page is not to blame, or perhaps is."""

from __future__ import annotations

from shared.errors import EngineUnavailable


class EngineDied(EngineUnavailable):
    """The engine died while it held this page."""

    def __init__(self, detail: str = "", *, suspect: bool, suspects: int = 0) -> None:
        """`suspect`: the page was being touched, so it may be what killed the engine.

        `suspects` counts all such pages: with 1, this page was alone.
        """
        super().__init__(detail)
        self.suspect = suspect
        self.suspects = suspects
        self.blames = suspect


class ReadingCancelled(EngineUnavailable):
    """The reading was cancelled by whoever asked for it."""

    blames = False
