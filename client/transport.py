"""Requests to the server, repeated where that is safe.

Answers that are no success become the errors of `client.errors`. A GET may always be repeated.
What changes something is repeated only where it cannot have happened: no connection was made, or
the server said that it is too busy. What makes a job goes under a key (Idempotency-Key), by which the
server knows a request that it has seen: that may be repeated as well.
"""

from __future__ import annotations

import logging
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from client.errors import UNEXPECTED_ANSWER, ApiError, ConnectionFailed, OctavoError, error_of
from client.event_stream import Event, EventDecoder
from client.models import Problem
from client.upload import Upload

_Model = TypeVar("_Model", bound=BaseModel)

IDEMPOTENCY_KEY = "Idempotency-Key"
EVENT_STREAM = "text/event-stream"
NOT_OURS = "The server's answer is not one of Octavo's."

FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 15.0

# Shorter than the 5 s after which uvicorn closes a connection that rests: a POST on one that is
# just being closed would fail without our knowing whether it arrived.
KEEP_ALIVE_SECONDS = 2.0

_BUSY = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
# An earlier request under the same key, whose answer did not reach us, is still being carried out.
_UNDER_WAY = "idempotency_in_flight"
# What a proxy says while the gateway behind it starts anew; the request may have been carried out.
_GONE = frozenset({HTTPStatus.BAD_GATEWAY, HTTPStatus.GATEWAY_TIMEOUT})

_log = logging.getLogger("octavo.client")
_log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Patience:
    """For how long a request is repeated, in seconds from its first failure.

    A pause that would end later is not begun: the failure is raised at once.
    """

    unreachable_seconds: float
    busy_seconds: float

    def at_most(self, seconds: float) -> Patience:
        """The same, but not longer than `seconds`."""
        return Patience(min(self.unreachable_seconds, seconds), min(self.busy_seconds, seconds))


ASKING = Patience(unreachable_seconds=2.0, busy_seconds=60.0)
"""Somebody waits for the answer; a server that is not there is said soon."""

WATCHING = Patience(unreachable_seconds=600.0, busy_seconds=600.0)
"""A job goes on without us, through a restart of the gateway; Retry-After is 300 s at most."""

_AT_ONCE = Patience(unreachable_seconds=0.0, busy_seconds=0.0)


class Transport:
    """A connection to one server, with one key. Safe to use from many threads."""

    def __init__(self, url: str, api_key: str, *, timeout_seconds: float) -> None:
        """Nothing is sent yet. Raises ValueError where `url` or `api_key` cannot be right."""
        self.timeout_seconds = timeout_seconds
        base_url = _checked_url(url)
        self._client = httpx.Client(
            base_url=base_url,
            headers={
                "Authorization": f"Bearer {_checked_key(api_key)}",
                "User-Agent": f"octavo-client/{version('octavo')}",
            },
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
            verify=_trusted(base_url),
            follow_redirects=False,  # the key is for this server only
        )

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def get(
        self,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        wait_seconds: float = 0.0,
        patience: Patience = ASKING,
    ) -> httpx.Response:
        """The answer, 2xx or 304; `wait_seconds` is how long the server may hold it back.

        Raises ApiError or ConnectionFailed once `patience` is at its end.
        """

        def send() -> httpx.Response:
            timeout = self._timeout(read_seconds=self.timeout_seconds + wait_seconds)
            return self._client.get(path, params=params, headers=headers, timeout=timeout)

        return _repeated(send, may_repeat=True, patience=patience)

    def events(self, path: str, decoder: EventDecoder, *, patience: Patience) -> Iterator[Event]:
        """The events of a stream, until it ends or breaks; then `decoder` knows how to go on.

        Raises ApiError or ConnectionFailed where it does not begin before `patience` is at its end.
        """

        def send() -> httpx.Response:
            headers = {"Last-Event-ID": decoder.last_id} if decoder.last_id else {}
            request = self._client.build_request(
                "GET", path, headers=headers, timeout=self._timeout()
            )
            answer = self._client.send(request, stream=True)
            if not answer.is_success:
                answer.read()
            return answer

        with closing(_repeated(send, may_repeat=True, patience=patience)) as answer:
            if not answer.headers.get("Content-Type", "").startswith(EVENT_STREAM):
                raise _unexpected(answer, "It is no stream of events.")
            decoder.restart()
            try:
                for piece in answer.iter_bytes():
                    yield from decoder.feed(piece)
            except httpx.TransportError as error:
                _log.warning("a stream broke: %s", str(error) or type(error).__name__)

    def post(
        self, path: str, *, json: Mapping[str, str] | None = None, key: str | None = None
    ) -> httpx.Response:
        """The answer, 2xx; raises ApiError or ConnectionFailed. With a `key` done once at most."""
        headers = {} if key is None else {IDEMPOTENCY_KEY: key}
        return self._change(
            lambda: self._client.post(path, json=json, headers=headers, timeout=self._timeout()),
            may_repeat=key is not None,
        )

    def delete(self, path: str) -> httpx.Response:
        """The answer, 2xx; raises ApiError or ConnectionFailed."""
        return self._change(lambda: self._client.delete(path, timeout=self._timeout()))

    def upload(self, path: str, upload: Upload, *, key: str) -> httpx.Response:
        """The answer to `upload`, 2xx; raises ApiError, ConnectionFailed, or what reading raises.

        However often it is sent under one `key`, it is done once at most.
        """

        def send() -> httpx.Response:
            headers = upload.headers() | {IDEMPOTENCY_KEY: key}
            return self._client.post(
                path, content=upload.body(), headers=headers, timeout=self._timeout()
            )

        patience = ASKING if upload.can_repeat else _AT_ONCE
        return self._change(send, may_repeat=True, patience=patience)

    def _change(
        self,
        send: Callable[[], httpx.Response],
        *,
        may_repeat: bool = False,
        patience: Patience = ASKING,
    ) -> httpx.Response:
        return _repeated(send, may_repeat=may_repeat, patience=patience)

    def _timeout(self, *, read_seconds: float | None = None) -> httpx.Timeout:
        # No limit on waiting for a connection of our own pool: that is no fault of the server's.
        return httpx.Timeout(
            self.timeout_seconds, read=read_seconds or self.timeout_seconds, pool=None
        )


def parsed(answer: httpx.Response, model: type[_Model]) -> _Model:
    """The body of `answer` as a `model`; raises ApiError, `unexpected_answer`, where it is none."""
    try:
        return model.model_validate_json(answer.content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _unexpected(answer, f"{where or 'body'}: {first['msg']}") from error


def parsed_event(event: Event, model: type[_Model]) -> _Model:
    """The data of `event` as a `model`; raises ApiError, `unexpected_answer`, where it is none."""
    try:
        return model.model_validate_json(event.data)
    except ValidationError as error:
        problem = Problem(
            code=UNEXPECTED_ANSWER,
            title=NOT_OURS,
            detail=f"event {event.name}: {error.errors()[0]['msg']}",
        )
        raise error_of(problem, status=HTTPStatus.OK) from error


def retry_after_seconds(answer: httpx.Response) -> int | None:
    """How long the server wants to be left alone; None where it does not say, or not in words of HTTP."""
    value = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    seconds = (moment.astimezone(UTC) - datetime.now(UTC)).total_seconds()
    return max(0, round(seconds))


@dataclass(frozen=True)
class _Failure:
    """Why one attempt brought nothing, and whether another may."""

    error: OctavoError
    cause: Exception | None = None
    had_no_effect: bool = False
    may_pass: bool = False
    is_busy: bool = False
    asked_seconds: int = 0

    def pause_seconds(self, attempt: int) -> float:
        """Time until the next attempt: as long as was asked for, and longer each time."""
        longest = min(FIRST_PAUSE_SECONDS * 2.0**attempt, LONGEST_PAUSE_SECONDS)
        # Spread out, so that many clients do not come back at the same moment.
        return self.asked_seconds + longest * random.uniform(0.5, 1.0)  # noqa: S311 -- no secret

    def is_borne(self, patience: Patience, began: float, pause_seconds: float) -> bool:
        """Whether a pause from now still ends within `patience`; `began` is the first failure's."""
        allowed = patience.busy_seconds if self.is_busy else patience.unreachable_seconds
        return time.monotonic() + pause_seconds <= began + allowed


def _repeated(
    send: Callable[[], httpx.Response], *, may_repeat: bool, patience: Patience
) -> httpx.Response:
    """The first good answer; `may_repeat` says that a second request does no harm."""
    began: float | None = None
    attempt = 0
    while True:
        outcome = _attempt(send)
        if isinstance(outcome, httpx.Response):
            return outcome
        began = time.monotonic() if began is None else began
        pause = outcome.pause_seconds(attempt)
        is_safe = may_repeat or outcome.had_no_effect
        if not (outcome.may_pass and is_safe and outcome.is_borne(patience, began, pause)):
            raise outcome.error from outcome.cause
        _log.warning("%s; trying again in %.1f s", outcome.error, pause)
        time.sleep(pause)
        attempt += 1


def _attempt(send: Callable[[], httpx.Response]) -> httpx.Response | _Failure:
    try:
        answer = send()
    except httpx.RequestError as error:
        return _Failure(
            _connection_failed(error),
            cause=error,
            had_no_effect=isinstance(error, httpx.ConnectError | httpx.ConnectTimeout),
            may_pass=isinstance(error, httpx.TransportError),
        )
    if answer.is_success or answer.status_code == HTTPStatus.NOT_MODIFIED:
        return answer
    refusal = _refusal(answer)
    is_busy = answer.status_code in _BUSY or refusal.code == _UNDER_WAY
    return _Failure(
        refusal,
        had_no_effect=is_busy,
        may_pass=is_busy or answer.status_code in _GONE,
        is_busy=is_busy,
        asked_seconds=retry_after_seconds(answer) or 0,
    )


def _connection_failed(error: httpx.RequestError) -> ConnectionFailed:
    url = error.request.url
    reason = str(error) or type(error).__name__
    return ConnectionFailed(f"no answer from {url.scheme}://{url.netloc.decode()}: {reason}")


def _refusal(answer: httpx.Response) -> ApiError:
    try:
        problem = Problem.model_validate_json(answer.content)
    except ValidationError:
        return _unexpected(answer, answer.headers.get("Location", ""))
    return error_of(
        problem, status=answer.status_code, retry_after_seconds=retry_after_seconds(answer)
    )


def _unexpected(answer: httpx.Response, detail: str) -> ApiError:
    problem = Problem(
        code=UNEXPECTED_ANSWER,
        title=NOT_OURS,
        detail=f"HTTP {answer.status_code} {answer.reason_phrase} {detail}".rstrip(),
        retryable=answer.status_code in _BUSY | _GONE,
        request_id=answer.headers.get("X-Request-Id"),
    )
    return error_of(
        problem, status=answer.status_code, retry_after_seconds=retry_after_seconds(answer)
    )


def _checked_url(url: str) -> httpx.URL:
    try:
        checked = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise ValueError(f"the server's address cannot be read: {error}") from error
    if checked.scheme not in {"http", "https"} or not checked.host:
        raise ValueError("the server's address must begin with http:// or https://")
    if checked.userinfo or checked.query or checked.fragment:
        raise ValueError("the server's address must have no user, query or fragment")
    return checked


def _trusted(url: httpx.URL) -> ssl.SSLContext:
    """Whom to trust: to load all certificates takes 0.1 s, and plain HTTP needs none of them."""
    if url.scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.create_ssl_context()


def _checked_key(api_key: str) -> str:
    key = api_key.strip()  # a key from a file often has its newline
    if not re.fullmatch(r"[!-~]+", key):
        raise ValueError("the API key is empty, or has characters that no key has")
    return key
