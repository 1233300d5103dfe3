"""A clock that tests move by hand, in the place of the module `time`."""

from __future__ import annotations


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Seconds, as in `time`."""
        return self.now
