"""How a reading ends that nobody waits for any more."""

from __future__ import annotations

from shared.errors import EngineUnavailable


class ReadingCancelled(EngineUnavailable):
    """The reading was cancelled by whoever asked for it."""

    blames = False
