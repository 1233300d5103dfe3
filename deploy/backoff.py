"""When something that died is started again, and when no more."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

FIRST_SECONDS = 0.2
LONGEST_SECONDS = 10.0

LOOP_DEATHS = 5
LOOP_SECONDS = 30.0
"""So many deaths in that time are a crash loop: it will not get better by itself."""


@dataclass(frozen=True)
class Restarts:
    """How patient the platform is with what dies; whoever kills its parts wants more patience."""

    longest_seconds: float = LONGEST_SECONDS
    loop_deaths: int = LOOP_DEATHS


class Backoff:
    """The deaths of one thing. Times are those of one clock, in seconds."""

    def __init__(self, restarts: Restarts | None = None) -> None:
        self._restarts = restarts or Restarts()
        self._deaths: deque[float] = deque(maxlen=self._restarts.loop_deaths)
        self._delay = FIRST_SECONDS

    def died(self, now: float) -> float | None:
        """How long to wait before it is started again; None where it is in a crash loop.

        Each delay is twice the one before, until it has lived for LOOP_SECONDS.
        """
        if self._deaths and now - self._deaths[-1] > LOOP_SECONDS:
            self._delay = FIRST_SECONDS
        self._deaths.append(now)
        if (
            len(self._deaths) == self._restarts.loop_deaths
            and now - self._deaths[0] <= LOOP_SECONDS
        ):
            return None
        delay, self._delay = self._delay, min(2 * self._delay, self._restarts.longest_seconds)
        return delay
