"""What an engine is to the child process that it lives in.

An engine is driven in steps, so that one that batches can let pages join and leave between any two
of them: `submit` and `cancel` only note, `step` works. A step is short, a second at most where the
engine can help it: between steps the child hears of new and cancelled pages, and a host that sees
no step for too long takes the engine for hung.

Errors of one page are events (`Failed`). An exception out of `step` is the engine's own end: the
child dies of it and a new one is spawned. That is the right answer to a sticky device error, and to
whatever nobody thought of.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from worker.engine.protocol import Event, Read


class Engine(Protocol):
    """Page images in, recognitions out."""

    @property
    def name(self) -> str:
        """As it stands in `worker.engine.registry`."""

    @property
    def model(self) -> str:
        """Which weights read, for the record."""

    @property
    def slots(self) -> int:
        """How many pages it may hold at once, those included that wait for their turn."""

    @property
    def device(self) -> dict[str, str]:
        """What it runs on, in words."""

    @property
    def golden_text(self) -> str:
        """What the text of the golden page must contain where the engine is sound."""

    @property
    def busy(self) -> bool:
        """Whether it holds a page."""

    def submit(self, request: Read) -> None:
        """Hold a page. Pages are begun in the order in which they came."""

    def tell(self, page_id: int) -> None:
        """Yield the text of a page as `Delta`s from now on, beginning with what there is of it.

        Nothing, where it is told already, is not held, or has no text before its end.
        """

    def cancel(self, page_id: int) -> None:
        """Hold the page no longer; no event names it after this. Nothing, where it is not held."""

    def step(self) -> Iterator[Event]:
        """The next piece of work on what is held, which is not empty.

        The caller passes each event on before it asks for the next. So `Working` is yielded before
        the first of its pages is touched, and at least once a step; a page's first `Working` also
        starts the clock by which it must end.
        """
