"""How fast an engine is: output tokens a second, over about the last minute."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SPAN_SECONDS = 60.0


class Pace:
    """What a counter of tokens came to lately; asked at every heartbeat."""

    def __init__(self, tokens: Callable[[], int]) -> None:
        """`tokens` is how many there were in all: those of a page once it is read."""
        self._tokens = tokens
        self._noted = deque([(time.monotonic(), tokens())])

    def facts(self) -> dict[str, float]:
        """`tokens_per_s`; nothing of an engine that never had a token."""
        now, tokens = time.monotonic(), self._tokens()
        self._noted.append((now, tokens))
        while now - self._noted[1][0] >= SPAN_SECONDS:
            self._noted.popleft()
        since, before = self._noted[0]
        return {"tokens_per_s": round((tokens - before) / (now - since), 1)} if tokens else {}
