"""What happens to every request: an id, a bound on its body, safe headers, a line in the log."""

from __future__ import annotations

import asyncio
import re
import time
from threading import Event
from typing import Any
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import errors

SMALL_BODY_BYTES = 64 * 1024
"""What any route takes but the one for uploads, which counts for itself."""

SMALL_BODY_SECONDS = 10.0
"""Within which it must have come."""

UPLOADS = ("POST", "/v1/jobs")

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")

_SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}

log = structlog.get_logger()


class Correlation:
    """Gives each request an id, its own or the client's; logs how it was answered.

    What crashes is answered here: Starlette would do so outside, where the id is not known.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope))
        scope.setdefault("state", {})["request_id"] = request_id
        began, status = time.monotonic(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), scope["state"])
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                if status:
                    raise  # the answer has begun: the connection breaks, so that none takes it whole
                answer = errors.crash(Request(scope), error)
                await answer(scope, receive, send_with_headers)
            finally:
                log.info(
                    "request_answered",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    seconds=round(time.monotonic() - began, 4),
                )


class BodyLimit:
    """Refuses bodies that no route but the one for uploads would take."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or (scope["method"], scope["path"]) == UPLOADS:
            await self._app(scope, receive, send)
            return
        received, is_whole = 0, False
        until = asyncio.get_running_loop().time() + SMALL_BODY_SECONDS

        async def receive_bounded() -> Message:
            nonlocal received, is_whole
            if is_whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408) from error
            is_whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > SMALL_BODY_BYTES:
                raise HTTPException(413)
            return message

        await self._app(scope, receive_bounded, send)


class Farewell:
    """Lets clients of a gateway that is ending take their next request elsewhere.

    Their connections would otherwise be closed while a request is on its way.
    """

    def __init__(self, app: ASGIApp, draining: Event) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def send_farewell(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining.is_set():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive, send_farewell)


def _request_id(headers: Headers) -> str:
    given = headers.get("x-request-id", "")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{uuid4().hex}"


def _add_headers(headers: MutableHeaders, state: dict[str, Any]) -> None:
    headers["X-Request-Id"] = state["request_id"]
    if rate := state.get("rate"):  # there is none before the caller is known
        headers.update(rate.headers())
    for name, value in _SAFE_HEADERS.items():
        headers.setdefault(name, value)
