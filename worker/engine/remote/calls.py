"""Calls to the server: bounded in time and size, and tried again where what went wrong may pass."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import httpx

from worker.engine.remote.answer import Answer
from worker.engine.remote.errors import (
    Away,
    Broken,
    CallFailed,
    Nonsense,
    Refused,
    ServerRefuses,
    Silent,
    TooLong,
)
from worker.engine.remote.settings import RemoteSettings

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0  # whatever the server asks for
MAX_LINE_BYTES = 1024**2
MAX_ANSWER_BYTES = 16 * 1024**2  # a token with its probability takes some 300
_DONE = b"[DONE]"

_NOBODY = {
    HTTPStatus.UNAUTHORIZED,
    HTTPStatus.FORBIDDEN,
    HTTPStatus.NOT_FOUND,  # the address, or the model
    HTTPStatus.METHOD_NOT_ALLOWED,
}
_FULL = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}


class Calls:
    """The client of one server. Used by one event loop."""

    def __init__(self, settings: RemoteSettings) -> None:
        self._tries = settings.tries
        key = settings.api_key.get_secret_value()
        silence = settings.silence_seconds
        self._http = httpx.AsyncClient(
            headers={"Accept-Encoding": "identity", "Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            timeout=httpx.Timeout(silence, connect=settings.connect_seconds),
            limits=httpx.Limits(max_connections=settings.concurrency),
            trust_env=False,
        )
        self._url = settings.url.rstrip("/") + "/chat/completions"

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def read(
        self, body: bytes, *, on_text: Callable[[str], None], on_again: Callable[[], None]
    ) -> Answer:
        """The server's answer to `body`; `on_text` hears of it as it comes.

        `on_again` is called before another try, which says everything once more. Raises CallFailed,
        and ServerRefuses where no page would be answered. Cancelled, it closes its connection.
        """
        for tried in range(1, self._tries + 1):
            try:
                return await self._once(body, on_text)
            except CallFailed as failed:
                if not failed.may_pass or tried == self._tries:
                    raise
                await asyncio.sleep(pause_seconds(tried, failed.retry_after_seconds))
                on_again()
        raise AssertionError("there is at least one try")

    async def _once(self, body: bytes, on_text: Callable[[str], None]) -> Answer:
        try:
            async with self._http.stream("POST", self._url, content=body) as response:
                _check(response)
                return await _listen(response, on_text)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Away("The server does not answer.") from error
        except httpx.TimeoutException as error:
            raise Silent("The server said nothing for too long.") from error
        except httpx.TransportError as error:
            raise Broken("The connection to the server broke.") from error


def _check(response: httpx.Response) -> None:
    """Raises where the answer is another than 200, or in a coding that might blow up."""
    status = response.status_code
    if status == HTTPStatus.OK:
        if response.headers.get("Content-Encoding", "identity") != "identity":
            raise Nonsense("The server's answer is compressed, unasked.")
        return
    said = f"HTTP {status}"
    if status in _FULL:
        wait = seconds_until_retry(response.headers.get("Retry-After"))
        raise Away(f"The server takes nothing more ({said}).", retry_after_seconds=wait)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        raise Broken(f"The server failed on this page ({said}).")
    if status in _NOBODY or status < HTTPStatus.BAD_REQUEST:
        raise ServerRefuses(f"{response.url} refuses: {said}")
    raise Refused(f"The server does not take this page ({said}).")


async def _listen(response: httpx.Response, on_text: Callable[[str], None]) -> Answer:
    answer = Answer()
    is_stream = response.headers.get("Content-Type", "").startswith("text/event-stream")
    chunks = _events(response) if is_stream else _whole(response)
    async for chunk in chunks:
        if text := answer.take(chunk):
            on_text(text)
        if answer.looped:
            return answer  # the connection is closed, and the server reads no further
    if not answer.is_whole:
        raise Broken("The server's answer was cut off.")
    return answer


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    """The data of a stream of events, until its last."""
    async for line in _lines(response):
        field, _, data = line.partition(b":")
        if field == b"data":
            if data.strip() == _DONE:
                return
            yield data.strip()


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    rest, seen = b"", 0
    async for piece in response.aiter_raw():
        seen += len(piece)
        *lines, rest = (rest + piece).split(b"\n")
        if seen > MAX_ANSWER_BYTES or len(rest) > MAX_LINE_BYTES:
            raise TooLong("The server's answer does not end.")
        for line in lines:
            yield line
    yield rest


async def _whole(response: httpx.Response) -> AsyncIterator[bytes]:
    """The one chunk of a server that does not stream."""
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise TooLong("The server's answer does not end.")
    yield bytes(body)


def pause_seconds(tried: int, asked: float | None) -> float:
    """As long as the server asks; else longer each time, and no two alike."""
    pause: float = FIRST_PAUSE_SECONDS * 2 ** (tried - 1) * random.uniform(0.5, 1)  # noqa: S311
    return min(max(pause, asked or 0), LONGEST_PAUSE_SECONDS)


def seconds_until_retry(header: str | None) -> float | None:
    """`Retry-After` in either of its forms; None where it is neither."""
    if header is None:
        return None
    if header.isascii() and header.isdecimal():
        return float(header[:9])
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    return (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
