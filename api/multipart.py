"""Multipart bodies, read part by part as they come; nothing is kept but what the reader asks for."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shared.errors import MalformedRequest

FIELD_BYTES = 64 * 1024
"""The most that all parts together may hold which are not the file, names included."""

PARTS = 64
"""The most parts: all options, all metadata and the file are 42."""

FRAME_BYTES = 64 * 1024
"""The most that no part holds: boundaries, headers, and what is before and behind all parts."""


@dataclass
class _Headers:
    values: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class _Data:
    chunk: bytes


class _End:
    pass


class Part:
    """One part; its bytes must be read before the next is asked for."""

    def __init__(self, body: Multipart, name: str, filename: str | None) -> None:
        self.name, self.filename = name, filename
        self._body = body

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes of the part as they come."""
        while isinstance(event := await self._body.next_event(), _Data):
            yield event.chunk
        if event is None:
            raise MalformedRequest("The multipart body ends in the middle of a part.")

    async def text(self, most_bytes: int) -> str:
        """The whole part, which must be short and UTF-8."""
        value = bytearray()
        async for chunk in self.chunks():
            value += chunk
            if len(value) > most_bytes:
                raise MalformedRequest(f"All parts but the file: at most {FIELD_BYTES} bytes.")
        try:
            return value.decode()
        except UnicodeDecodeError as error:
            raise MalformedRequest(f"Part {self.name} is not UTF-8.") from error


class Multipart:
    """A multipart body that is still coming in."""

    def __init__(self, content_type: str, stream: AsyncIterator[bytes]) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise MalformedRequest("Content-Type: multipart/form-data needs a boundary.")
        self._stream = stream
        self._events: deque[_Headers | _Data | _End] = deque()
        self._header = (bytearray(), bytearray())
        self._parts = self._frame_bytes = 0
        self._parser = self._parser_of(options[b"boundary"])

    async def parts(self) -> AsyncIterator[Part]:
        """The parts in order."""
        while (event := await self.next_event()) is not None:
            if isinstance(event, _Headers):
                disposition = event.values.get(b"content-disposition")
                _, options = parse_options_header(disposition)
                name = options.get(b"name", b"").decode(errors="replace")
                filename = options.get(b"filename")
                yield Part(self, name, filename.decode(errors="replace") if filename else None)

    async def next_event(self) -> _Headers | _Data | _End | None:
        """What comes next; None at the end of the body."""
        while not self._events or self._is_open(self._events[0]):
            chunk = await anext(self._stream, None)
            if chunk is None:
                return None
            self._parse(chunk)
        return self._events.popleft()

    def _parser_of(self, boundary: bytes) -> MultipartParser:
        try:
            return MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": lambda data, start, end: self._header[0].extend(
                        data[start:end]
                    ),
                    "on_header_value": lambda data, start, end: self._header[1].extend(
                        data[start:end]
                    ),
                    "on_header_end": self._end_header,
                    "on_part_data": self._take_data,
                    "on_part_end": lambda: self._events.append(_End()),
                },
            )
        except FormParserError as error:
            raise MalformedRequest("The boundary of the multipart body is too long.") from error

    def _parse(self, chunk: bytes) -> None:
        self._frame_bytes += len(chunk)
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise MalformedRequest("The multipart body is broken.") from error
        if self._frame_bytes > FRAME_BYTES:
            raise MalformedRequest(f"Around what the parts hold: at most {FRAME_BYTES} bytes.")

    def _is_open(self, event: _Headers | _Data | _End) -> bool:
        """Whether headers are still coming in: they are known once something follows them."""
        return isinstance(event, _Headers) and len(self._events) == 1

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > PARTS:
            raise MalformedRequest(f"At most {PARTS} parts.")
        self._events.append(_Headers())

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        self._frame_bytes -= end - start
        self._events.append(_Data(data[start:end]))

    def _end_header(self) -> None:
        name, value = self._header
        headers = self._events[-1]
        assert isinstance(headers, _Headers)
        headers.values[bytes(name).lower()] = bytes(value)
        name.clear()
        value.clear()
