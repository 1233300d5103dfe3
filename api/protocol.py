"""HTTP as uvicorn speaks it, with bounds on time and with problems where it gives up.

uvicorn waits for ever for the first request of a connection, for the end of its headers, and for
the end of a body that was answered before it was whole. Bodies that a route reads are bounded in
`api.pace` and `api.middleware`.
"""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.errors import MalformedRequest

HEADER_SECONDS = 10.0
"""From the connection, or the first byte of a later request, to the end of its headers."""

LINGER_SECONDS = 5.0
"""What is left of a body that was refused is taken for so long: cut off at once, a client that is
still sending might not see the answer."""


class Protocol(HttpToolsProtocol):
    """One connection."""

    _deadline: asyncio.TimerHandle | None = None
    _is_whole = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._close_after(HEADER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._keep_open()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Wait for the headers."""
        super().on_message_begin()
        self._is_whole = False
        self._close_after(HEADER_SECONDS)

    def on_headers_complete(self) -> None:
        """Leave the rest to whoever reads the body."""
        self._keep_open()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the request is whole."""
        super().on_message_complete()
        self._is_whole = True
        self._keep_open()

    def on_response_complete(self) -> None:
        """Wait, a little, for the rest of a request that is answered already."""
        super().on_response_complete()
        if not self._is_whole:
            self._close_after(LINGER_SECONDS)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP with a problem; no request exists that a route could answer."""
        error = MalformedRequest(msg)
        request_id = f"req_{uuid4().hex}"
        about = {"type": f"urn:octavo:error:{error.code}", "status": error.status, "instance": ""}
        body = json.dumps(about | {"request_id": request_id} | error.facts()).encode()
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "Content-Type: application/problem+json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"X-Request-Id: {request_id}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _close_after(self, seconds: float) -> None:
        self._keep_open()
        self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _keep_open(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
