"""One life of an engine's process, from its spawning to its death.

Pages go in while there is room, answers come out, and nobody waits past the death. The life ends by
itself where the child is gone, and is ended where it does not get on or will not let go of a page.
"""

from __future__ import annotations

import codecs
import io
import selectors
import time
from dataclasses import dataclass, field
from typing import Any

import structlog

from shared.errors import EngineDied, InternalError, OctavoError, PageTimeout, PageTooLong
from worker.engine import output
from worker.engine.errors import ReadingCancelled
from worker.engine.inbox import Inbox
from worker.engine.protocol import (
    Cancel,
    Cancelled,
    Delta,
    Done,
    Failed,
    FromChild,
    ProtocolError,
    Ready,
    Tell,
    Tick,
    Working,
)
from worker.engine.reading import Reading, Vitals
from worker.engine.spawn import Child
from worker.pipeline.markup import clean

WATCH_SECONDS = 0.1
LONGEST_GAP_SECONDS = 1.0

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long, and how much, one page and one child may take."""

    page_seconds: float  # from the page's first touch
    cancel_seconds: float  # after that, for the child to let go of it
    stall_seconds: float  # without any sign of progress, while pages are held
    start_seconds: float  # from the spawning to Ready
    max_recognition_bytes: int


class LifeEnded(Exception):
    """The child is gone, or has to go; the message says why."""

    def __init__(self, why: str, *, blames: bool = True, by_itself: bool = False) -> None:
        """`blames`: what the child was touching may be the cause. `by_itself`: nobody ended it."""
        super().__init__(why)
        self.blames = blames
        self.by_itself = by_itself


def _decoder() -> io.IncrementalNewlineDecoder:
    """Of text that comes in pieces, cut anywhere."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    return io.IncrementalNewlineDecoder(utf8, translate=True)


@dataclass
class _Flight:
    """A page that the child holds."""

    reading: Reading
    touched_at: float | None = None
    tell_sent: bool = False
    cancel_sent: bool = False
    told_bytes: int = 0
    _decoder: io.IncrementalNewlineDecoder = field(default_factory=_decoder)

    def grow(self, text: bytes) -> None:
        """Let the reading hear what the child tells."""
        self.told_bytes += len(text)
        self.reading.hear(clean(self._decoder.decode(text)))


class Life:
    """A child and the pages that it holds. Used by the host's supervisor alone.

    The inbox outlives it: what waits in there was not handed to any child yet.
    """

    def __init__(self, child: Child, *, inbox: Inbox, limits: Limits, vitals: Vitals) -> None:
        self.ready: Ready | None = None
        self._child = child
        self._inbox = inbox
        self._limits = limits
        self._vitals = vitals
        self._flights: dict[int, _Flight] = {}
        self._suspects: frozenset[int] = frozenset()
        self._steps = 0
        # Time as this thread has lived it: what it slept through, stopped or starved, is not held
        # against the child.
        self._now = 0.0
        self._progress_at = 0.0
        self._watched = time.monotonic()
        self._selector = selectors.DefaultSelector()
        self._selector.register(child.socket, selectors.EVENT_READ, self._receive)
        self._selector.register(child.output, selectors.EVENT_READ, self._listen)
        self._selector.register(inbox, selectors.EVENT_READ, inbox.hush)

    @property
    def pid(self) -> int:
        """The child's."""
        return self._child.pid

    def facts(self) -> dict[str, Any]:
        """Which child this is, for the log."""
        facts: dict[str, Any] = {"pid": self._child.pid}
        if self.ready is not None:
            facts |= {"model": self.ready.model, "slots": self.ready.slots, **self.ready.device}
        return facts

    # A turn of the supervisor

    def turn(self) -> None:
        """Do what there is to do, and wait a moment where there is nothing. Raises LifeEnded."""
        try:
            self._hand_over()
            self._send()
            for key, events in self._selector.select(WATCH_SECONDS):
                if events & selectors.EVENT_READ:
                    key.data()
        except (OSError, EOFError) as error:
            raise LifeEnded("ended by itself", by_itself=True) from error
        except ProtocolError as error:
            raise LifeEnded(f"broke the protocol: {error}") from error
        if time.monotonic() - self._watched >= WATCH_SECONDS:
            self._watch()

    def _hand_over(self) -> None:
        waiting, cancelled = self._inbox.waiting, self._inbox.cancelled
        while cancelled:
            self._cancel(cancelled.popleft())
        while waiting and (waiting[0].ended or self._has_room(waiting[0])):
            reading = waiting.popleft()
            if not reading.ended:
                self._progress_at = self._progress_at if self._flights else self._now
                self._flights[reading.request.id] = _Flight(reading)
                self._child.put(reading.request)
                if reading.is_glanced_at:
                    self._tell(reading)
        while self._inbox.told:
            self._tell(self._inbox.told.popleft())

    def _has_room(self, newcomer: Reading) -> bool:
        if self.ready is None:
            return False
        company = [newcomer, *(flight.reading for flight in self._flights.values())]
        limits = [reading.among for reading in company if reading.among is not None]
        return len(company) <= min([self.ready.slots, *limits])

    def _send(self) -> None:
        was_behind = self._child.is_behind
        self._child.flush()
        if was_behind or self._child.is_behind:
            write = selectors.EVENT_WRITE if self._child.is_behind else 0
            events = selectors.EVENT_READ | write
            self._selector.modify(self._child.socket, events, self._receive)

    def _tell(self, reading: Reading) -> None:
        """Have the child tell a page that it holds; one that still waits is told when it goes."""
        flight = self._flights.get(reading.request.id)
        if flight and not flight.tell_sent:
            flight.tell_sent = True
            self._child.put(Tell(reading.request.id))

    def _cancel(self, reading: Reading) -> None:
        flight = self._flights.get(reading.request.id)
        if flight and not flight.cancel_sent:
            flight.cancel_sent = True
            self._child.put(Cancel(reading.request.id))

    def _listen(self) -> None:
        if not self._child.listen():
            self._selector.unregister(self._child.output)

    # What the child says

    def _receive(self) -> None:
        for message in self._child.receive():
            self._progress_at = self._now
            if self.ready is None and not isinstance(message, Ready):
                raise ProtocolError(f"{message.kind} before ready")
            self._hear(message)

    def _hear(self, message: FromChild) -> None:
        match message:
            case Ready():
                self.ready = message
            case Working(ids=ids):
                self._suspect(ids)
            case Tick():
                self._count(message)
            case Delta():
                self._grow(message)
            case Done():
                self._done(message)
            case Failed(id=page_id, code=code, detail=detail):
                self._end(page_id, output.error(code, detail))
            case Cancelled(id=page_id):
                self._let_go(page_id)

    def _suspect(self, ids: tuple[int, ...]) -> None:
        self._suspects = frozenset(ids)
        for page_id in ids:
            flight = self._flights.get(page_id)
            if flight and flight.touched_at is None:
                flight.touched_at = self._now
                flight.reading.steps += 1

    def _count(self, tick: Tick) -> None:
        self._vitals.steps += max(0, tick.steps - self._steps)
        self._steps = tick.steps
        for page_id in tick.ids:
            if flight := self._flights.get(page_id):
                flight.reading.steps += 1

    def _grow(self, delta: Delta) -> None:
        flight = self._flights.get(delta.id)
        if flight is None:
            return
        if flight.told_bytes + len(delta.text) > self._limits.max_recognition_bytes:
            self._give_up(flight, PageTooLong("The engine did not stop giving text."))
        else:
            flight.grow(delta.text)

    def _done(self, done: Done) -> None:
        flight = self._flights.get(done.id)
        if flight is None or flight.reading.request.checksum != done.checksum:
            self._ignore(done.id)
            return
        del self._flights[done.id]
        if flight.reading.ended:
            return
        try:
            limit = self._limits.max_recognition_bytes
            flight.reading.succeed(output.recognition(done.recognition, max_bytes=limit))
        except (PageTooLong, InternalError) as error:
            flight.reading.fail(error)

    def _end(self, page_id: int, error: OctavoError) -> None:
        flight = self._flights.pop(page_id, None)
        if flight is None:
            self._ignore(page_id)
        else:
            flight.reading.fail(error)

    def _let_go(self, page_id: int) -> None:
        if flight := self._flights.pop(page_id, None):
            flight.reading.fail(ReadingCancelled())  # where nobody asked for it, nobody waits

    def _ignore(self, page_id: int) -> None:
        self._vitals.ignored_answers += 1
        log.warning("engine_answer_ignored", pid=self._child.pid, request=page_id)

    # What the child does not say

    def _watch(self) -> None:
        lived = time.monotonic() - self._watched
        self._watched += lived
        self._now += min(lived, LONGEST_GAP_SECONDS)
        if self.ready is None:
            self._watch_start()
        elif self._flights:
            self._watch_pages()

    def _watch_start(self) -> None:
        if self._now > self._limits.start_seconds:
            raise LifeEnded("did not start in time")

    def _watch_pages(self) -> None:
        if self._now - self._progress_at > self._limits.stall_seconds:
            raise LifeEnded("stalled")
        for flight in list(self._flights.values()):
            if flight.touched_at is None:
                continue
            late = self._now - flight.touched_at - self._limits.page_seconds
            if late > self._limits.cancel_seconds:
                raise LifeEnded("would not let go of a page", blames=False)
            if late > 0 and not flight.reading.ended:
                self._give_up(flight, PageTimeout())

    def _give_up(self, flight: _Flight, error: OctavoError) -> None:
        flight.reading.fail(error)
        self._cancel(flight.reading)

    # The end

    def bury(self, end: LifeEnded) -> dict[str, Any]:
        """End every page that the child held, then the child; how it went, for the log."""
        suspects = self._suspects & self._flights.keys() if end.blames else frozenset()
        for page_id, flight in self._flights.items():
            suspect = page_id in suspects
            flight.reading.fail(EngineDied(suspect=suspect, suspects=len(suspects)))
        self._selector.close()
        return self.facts() | {
            "why": str(end),
            "status": self._child.bury(ended_by_itself=end.by_itself),
            "pages": len(self._flights),
            "suspects": len(suspects),
            "output": self._child.last_words(),
        }
