"""One page on its way through the engine, as the thread sees it that asked for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field

from shared.document import Recognition
from worker.engine.errors import ReadingCancelled
from worker.engine.protocol import Read

MOST_CHARACTERS = 64 * 1024
"""Of a page's text that a glance shows; more is read once the page is."""


@dataclass
class Vitals:
    """How the engine is, over all its lives; read by any thread and written by its supervisor."""

    serving: threading.Event = field(default_factory=threading.Event)  # started, and not dead
    steps: int = 0  # of the engine, over all its deaths
    tokens: int = 0  # that were put out, of the pages that were read
    deaths: int = 0
    ignored_answers: int = 0  # for another page than the one they named, or twice


class Reading:
    """A page that was handed to the engine's host. It ends once, whichever way comes first."""

    def __init__(
        self,
        request: Read,
        *,
        vitals: Vitals,
        among: int | None,
        on_glance: Callable[[Reading], None],
        on_cancel: Callable[[Reading], None],
    ) -> None:
        self.request = request
        self.among = among
        self.steps = 0  # the engine's steps that touched this page
        self.is_glanced_at = False
        self._vitals = vitals
        self._on_glance = on_glance
        self._on_cancel = on_cancel
        self._heard: list[str] = []
        self._heard_characters = 0
        self._future: Future[Recognition] = Future()
        self._seen = (0, vitals.steps)

    @property
    def ended(self) -> bool:
        """Whether `result` has its answer."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> Recognition:
        """What the engine says of the page; waits for it, `timeout` seconds at most.

        Raises the OctavoError that the reading ended in, among them EngineDied, PageTimeout,
        PageTooLong, PageUnreadable and ReadingCancelled; TimeoutError where it has not ended.
        """
        return self._future.result(timeout)

    def cancel(self) -> None:
        """End the reading now with ReadingCancelled; the engine drops the page at its next step."""
        self.fail(ReadingCancelled())
        self._on_cancel(self)

    def progressed(self) -> bool:
        """Whether the page went on since this was last asked.

        A page that waits for its first step goes on when the engine does, and while the engine is
        being started: that takes as long as it takes, and is no fault of a page.
        """
        before, self._seen = self._seen, (self.steps, self._vitals.steps)
        own, engine = self._seen
        if own:
            return own > before[0]
        return engine > before[1] or not self._vitals.serving.is_set()

    def glance(self) -> str:
        """The text that the engine has read so far, its first MOST_CHARACTERS.

        The engine tells it from the first glance on, so that this is empty at first; and to the
        end, where the engine knows no text before it.
        """
        if not self.is_glanced_at:
            self.is_glanced_at = True
            self._on_glance(self)
        return "".join(self._heard)

    def hear(self, text: str) -> None:
        """Keep text that the engine has read, for the next glance."""
        if kept := text[: MOST_CHARACTERS - self._heard_characters]:
            self._heard_characters += len(kept)
            self._heard.append(kept)

    def succeed(self, recognition: Recognition) -> None:
        """End well, unless it has ended."""
        with suppress(InvalidStateError):
            self._future.set_result(recognition)
            self._vitals.tokens += recognition.usage.output_tokens or 0

    def fail(self, error: Exception) -> None:
        """End in `error`, unless it has ended."""
        with suppress(InvalidStateError):
            self._future.set_exception(error)
