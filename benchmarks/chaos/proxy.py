"""A proxy between the platform's processes and a server, which can be told to misbehave.

It copies bytes and knows just enough of HTTP to refuse a request: over one connection requests
follow one another, so bytes that come from a client begin or go on with a request, and no answer
is under way.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Self

from deploy.embedded import ports

CHUNK_BYTES = 64 * 1024
SLOW_SECONDS = 0.4
"""Of each chunk, both ways; several requests of a task then take some seconds."""
LOOK_SECONDS = 0.05

_PROBLEM = b"<Error><Code>ServiceUnavailable</Code></Error>"
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_PROBLEM), _PROBLEM)
)


class Mode(StrEnum):
    """What the proxy does with the bytes that it is given."""

    PASS = "pass"  # noqa: S105 - no password
    SLOW = "slow"
    ERRORS = "errors"  # every request is answered with 503
    RESET = "reset"  # every connection is reset
    CUT = "cut"  # of every answer, half of a chunk comes, and then the end
    SILENT = "silent"  # connections are taken, and nothing comes of them: a black hole
    GONE = "gone"  # nobody listens


class Proxy:
    """One address before one server. `mode` may be set by any thread, at any time."""

    def __init__(self, upstream: Callable[[], tuple[str, int]]) -> None:
        """`upstream` is asked for the server's host and port at each connection."""
        self.mode = Mode.PASS
        self._upstream = upstream
        self._port = ports.choose(1)[0]
        self._open: set[asyncio.StreamWriter] = set()
        self._is_listening = threading.Event()
        self._is_asked = threading.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    def __enter__(self) -> Self:
        """Listen."""
        self._thread.start()
        self._is_listening.wait()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self._is_asked.set()
        self._thread.join()
        ports.release([self._port])

    @property
    def url(self) -> str:
        """Where the proxy listens."""
        return f"http://{ports.HOST}:{self._port}"

    @contextmanager
    def misbehaving(self, mode: Mode) -> Iterator[None]:
        """Be in that mode while the block runs."""
        self.mode = mode
        try:
            yield
        finally:
            self.mode = Mode.PASS

    def _run(self) -> None:
        asyncio.run(self._listen())

    async def _listen(self) -> None:
        """Listen while there is somebody to be, and drop everybody when there is not."""
        while not self._is_asked.is_set():
            server = await asyncio.start_server(self._serve, ports.HOST, self._port)
            self._is_listening.set()
            await self._until(lambda: self._is_asked.is_set() or self.mode is Mode.GONE)
            server.close()
            for writer in list(self._open):
                _reset(writer)
            await self._until(lambda: self._is_asked.is_set() or self.mode is not Mode.GONE)

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():  # noqa: ASYNC110 - the mode is set by other threads
            await asyncio.sleep(LOOK_SECONDS)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client, until either side ends."""
        self._open.add(writer)
        with suppress(OSError):
            await self._join(reader, writer)
        self._open.discard(writer)
        _reset(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.mode is Mode.RESET:
            return
        there, back = await asyncio.open_connection(*self._upstream())
        ways = [
            asyncio.create_task(self._ask(reader, back, writer)),
            asyncio.create_task(self._answer(there, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            back.close()

    async def _ask(
        self, client: asyncio.StreamReader, server: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        while chunk := await client.read(CHUNK_BYTES):
            if self.mode is Mode.ERRORS:
                await _refuse(client, back)
                return
            if not await self._lets_through():
                return
            server.write(chunk)
            await server.drain()

    async def _answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while chunk := await server.read(CHUNK_BYTES):
            if not await self._lets_through():
                return
            is_cut = self.mode is Mode.CUT
            client.write(chunk[: len(chunk) // 2] if is_cut else chunk)
            await client.drain()
            if is_cut:
                client.close()
                return

    async def _lets_through(self) -> bool:
        """Whether a chunk goes on, after as long as it takes now."""
        if self.mode is Mode.SLOW:
            await asyncio.sleep(SLOW_SECONDS)
        if self.mode is Mode.SILENT:
            await self._until(lambda: self.mode is not Mode.SILENT)
            return False  # who was given nothing for so long is not served in the end
        return self.mode is not Mode.RESET


async def _refuse(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
    """Answer 503; what the client still sends is read, or it would not hear the answer."""
    back.write(_REFUSAL)
    await back.drain()
    back.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            while await client.read(CHUNK_BYTES):
                pass


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a machine does that lost power, unless it was closed in order."""
    if not writer.is_closing():
        opened: socket.socket = writer.get_extra_info("socket")
        with suppress(OSError):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
