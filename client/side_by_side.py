"""Work on many items at once, in stages, that Ctrl-C can leave at any moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Generic, TypeVar

_Item = TypeVar("_Item")

HEED_SECONDS = 0.2
"""A signal that comes just before a thread begins to wait does not wake it: so nobody waits longer."""


@dataclass(frozen=True)
class Stage(Generic[_Item]):
    """One step that each item takes, and how many take it at the same time."""

    work: Callable[[_Item], None]
    at_once: int


def side_by_side(
    items: Sequence[_Item], stages: Sequence[Stage[_Item]]
) -> Iterator[tuple[_Item, Exception | None]]:
    """Each item once it is through all stages, or with the error that ended its way.

    Items enter each stage in the order in which they left the one before. When the caller stops
    listening, no further work is begun, and what is going on is not waited for: the threads are
    daemons, since an answer may be held back for longer than anybody waits after Ctrl-C.
    """
    work = _Work(items, stages)
    try:
        for _ in items:
            yield work.next_done()
    finally:
        work.stop()


class _Work(Generic[_Item]):
    """The threads, and a queue before each stage; None in a queue sends a thread home."""

    def __init__(self, items: Sequence[_Item], stages: Sequence[Stage[_Item]]) -> None:
        self.done: SimpleQueue[tuple[_Item, Exception | None]] = SimpleQueue()
        self._threads = [min(stage.at_once, len(items)) for stage in stages]
        self._stages = stages
        self._stopped = Event()
        self._queues: list[SimpleQueue[_Item | None]] = [SimpleQueue() for _ in stages]
        for item in items:
            self._queues[0].put(item)
        for number, threads in enumerate(self._threads):
            for _ in range(threads):
                Thread(target=self._serve, args=[number], daemon=True).start()

    def next_done(self) -> tuple[_Item, Exception | None]:
        """The next item that is done, however long that takes; Ctrl-C is heard meanwhile."""
        while True:
            with suppress(Empty):
                return self.done.get(timeout=HEED_SECONDS)

    def stop(self) -> None:
        """Let every thread end after what it is doing."""
        self._stopped.set()
        for threads, queue in zip(self._threads, self._queues, strict=True):
            for _ in range(threads):
                queue.put(None)

    def _serve(self, number: int) -> None:
        while (item := self._queues[number].get()) is not None and not self._stopped.is_set():
            try:
                self._stages[number].work(item)
            except Exception as error:  # noqa: BLE001 -- whoever listens decides what it means
                self.done.put((item, error))
            else:
                self._pass_on(item, number + 1)

    def _pass_on(self, item: _Item, number: int) -> None:
        if number == len(self._stages):
            self.done.put((item, None))
        else:
            self._queues[number].put(item)
