"""Server-sent events, out of the bytes of an answer however they were cut on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """One event."""

    name: str
    data: str


class EventDecoder:
    """Reads one stream after the other, of which each goes on where the last one ended."""

    def __init__(self) -> None:
        self.last_id = ""
        """What the next stream is to be asked for with, as `Last-Event-ID`."""
        self.retry_seconds = 1.0
        """How long to wait before that."""
        self.restart()

    def restart(self) -> None:
        """Another stream begins; of the last one nothing more comes."""
        self._rest = b""
        self._clear()

    def _clear(self) -> None:
        self._name, self._id, self._data = "message", self.last_id, list[str]()

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that are complete with `piece`."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            text = line.removesuffix(b"\r").decode(errors="replace")
            if text:
                self._take(text)
            else:
                yield from self._end()

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")  # a comment has no name before it
        value = value.removeprefix(" ")
        match field:
            case "event":
                self._name = value
            case "data":
                self._data.append(value)
            case "id":
                self._id = value
            case "retry" if value.isascii() and value.isdecimal():
                self.retry_seconds = int(value[:9]) / 1000

    def _end(self) -> Iterator[Event]:
        event = Event(self._name, "\n".join(self._data)) if self._data else None
        self.last_id = self._id
        self._clear()
        if event is not None:
            yield event
