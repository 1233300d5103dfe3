"""HTTP as uvicorn speaks it, with bounds on time and size and with problems where it gives up.

uvicorn waits for ever for the first request of a connection, for the end of its headers, and for
the end of a body that was answered before it was whole. It keeps headers of any size and number,
and as many requests as come at once. Bodies that a route reads are bounded in `api.pace` and
`api.middleware`.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.errors import HeadersTooLarge, MalformedRequest, OctavoError

HEADER_SECONDS = 10.0
"""From the connection, or the first byte of a later request, to the end of its headers."""

LINGER_SECONDS = 5.0
"""What is left of a body that was refused is taken for so long: cut off at once, a client that is
still sending might not see the answer."""


HEAD_BYTES = 64 * 1024
"""The most that a request may have of address and fields, trailers among them."""

FIELDS = 100
"""The most that a request may have, trailers among them."""

WAITING = 16
"""The most requests of one connection that wait for the answers to those before them."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _is_whole = True
    _in_head = False
    _head_bytes = 0
    _fields = 0
    _open_bytes = 0
    """Since something ended that is bounded: the parser itself keeps any length of one field."""
    _refusal: OctavoError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._close_after(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._keep_open()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what comes, of which a read holds some hundred KB at most."""
        self._open_bytes += len(data)
        super().data_received(data)
        if self._open_bytes > HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HeadersTooLarge())
        if self._is_idle() and self._deadline is None:  # uvicorn's own ended with these bytes
            self._close_after(HEADER_SECONDS)

    def on_message_begin(self) -> None:
        """Wait for the headers."""
        super().on_message_begin()
        self._is_whole, self._in_head = False, True
        self._head_bytes = self._fields = self._open_bytes = 0
        self._close_after(HEADER_SECONDS)
        if len(self.pipeline) >= WAITING:
            raise MalformedRequest

    def on_url(self, url: bytes) -> None:
        """Take a piece of the address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field; trailers are counted and dropped, as they would pass for fields."""
        self._fields += 1
        self._count(len(name) + len(value))
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Leave the rest to whoever reads the body."""
        self._keep_open()
        self._in_head = False
        self._open_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._open_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        super().on_message_complete()
        self._is_whole = True
        self._open_bytes = 0
        self._keep_open()

    def on_response_complete(self) -> None:
        """Wait, a little, for the rest of a request that is answered already."""
        super().on_response_complete()
        if not self._is_whole:
            self._close_after(LINGER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser gave up, or was told to."""
        self._refuse(self._refusal or MalformedRequest(msg))

    def _count(self, more_bytes: int) -> None:
        """Raise HeadersTooLarge, which ends the parsing, where it is too much."""
        self._open_bytes = 0
        self._head_bytes += more_bytes
        if self._head_bytes > HEAD_BYTES or self._fields > FIELDS:
            self._refusal = HeadersTooLarge()
            raise self._refusal

    def _refuse(self, error: OctavoError) -> None:
        """Answer with a problem, no route having been found that could, and close."""
        if self._is_next_to_be_answered():
            self.transport.write(_answer(error))
        self.transport.close()

    def _is_idle(self) -> bool:
        return self._is_whole and (self.cycle is None or self.cycle.response_complete)

    def _is_next_to_be_answered(self) -> bool:
        """Whether what is answered now would be taken for the answer to what is coming in."""
        if self.cycle is None:
            return True
        if self._in_head:  # the last cycle is that of an earlier request
            return self.cycle.response_complete
        return not self.cycle.response_started and not self.pipeline

    def _close_after(self, seconds: float) -> None:
        self._keep_open()
        self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _keep_open(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def _answer(error: OctavoError) -> bytes:
    request_id = f"req_{uuid4().hex}"
    about = {"type": f"urn:octavo:error:{error.code}", "status": error.status, "instance": ""}
    body = json.dumps(about | {"request_id": request_id} | error.facts()).encode()
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"X-Request-Id: {request_id}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
