"""How a reading ends that says nothing of its page."""

from __future__ import annotations

from shared.errors import EngineUnavailable


class ReadingCancelled(EngineUnavailable):
    """The reading was cancelled by whoever asked for it."""

    blames = False


class ServerAway(EngineUnavailable):
    """The server that reads for the engine does not answer, or takes nothing more."""

    blames = False
