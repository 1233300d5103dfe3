"""A gateway that answers from a script, over real HTTP; and tests that it speaks as Octavo does.

The tests of the client and of the command line talk to it. What the true gateway does is tested
elsewhere, with the same client.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel

import api.schemas
import client.models
import shared.document

KEPT_BYTES = 1_000_000
JOB_ID = "job_0f8fad5bd9cb469fa16570867728950e"
JOB_PATH = f"/v1/jobs/{JOB_ID}"


@dataclass(frozen=True)
class Request:
    """What arrived; of a long body only the beginning is kept."""

    method: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes
    body_bytes: int
    at: float


@dataclass(frozen=True)
class Answer:
    status: int = 200
    body: dict[str, Any] | str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after_seconds: float = 0.0


class Drop:
    """The connection ends where an answer was due."""


Reply = Answer | Drop
Script = dict[tuple[str, str], list[Reply] | Callable[[Request], Reply]]


class Gateway:
    """The script, by method and path; of several answers each is given once, the last for ever."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.requests: list[Request] = []
        self._script: Script = {}
        self._lock = threading.Lock()

    def forget(self) -> None:
        """Begin a new script."""
        self.requests.clear()
        self._script.clear()

    def on(self, method: str, path: str, *replies: Reply) -> None:
        self._script[method, path] = list(replies)

    def on_each(self, method: str, path: str, reply: Callable[[Request], Reply]) -> None:
        self._script[method, path] = reply

    def reply(self, request: Request) -> Reply:
        with self._lock:
            self.requests.append(request)
            replies = self._script.get((request.method, request.path))
            if replies is None:
                return problem(
                    404, "not_found", f"no {request.method} {request.path} in the script"
                )
            if callable(replies):
                return replies(request)
            return replies.pop(0) if len(replies) > 1 else replies[0]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self) -> None:
        url = urlsplit(self.path)
        body, body_bytes = self._read()
        request = Request(
            self.command,
            url.path,
            dict(parse_qsl(url.query)),
            self.headers,
            body,
            body_bytes,
            time.monotonic(),
        )
        assert isinstance(self.server, _Server)
        reply = self.server.gateway.reply(request)
        if isinstance(reply, Drop):
            self.close_connection = True
            return
        time.sleep(reply.after_seconds)
        self._write(reply)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 -- the words of http.server

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its words
        pass

    def _read(self) -> tuple[bytes, int]:
        kept, total = b"", 0
        for piece in self._pieces():
            kept += piece[: KEPT_BYTES - len(kept)]
            total += len(piece)
        return kept, total

    def _pieces(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding") == "chunked":
            while length := int(self.rfile.readline(), 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            piece = self.rfile.read(min(left, 65_536))
            if not piece:
                raise ConnectionError
            left -= len(piece)
            yield piece

    def _write(self, reply: Answer) -> None:
        is_text = isinstance(reply.body, str)
        body = (
            reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
        )
        self.send_response(reply.status)
        kind = "text/plain; charset=utf-8" if is_text else "application/json"
        for name, value in {"Content-Type": kind, **reply.headers}.items():
            self.send_header(name, value)
        if reply.status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gateway = Gateway(f"http://127.0.0.1:{self.server_port}")

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that go away are a part of the tests."""


@contextmanager
def scripted_gateway() -> Iterator[Gateway]:
    """A gateway on a free port of this machine."""
    server = _Server()
    serving = threading.Thread(target=server.serve_forever, args=[0.02])
    serving.start()
    try:
        yield server.gateway
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def a_job(status: str = "queued", job_id: str = JOB_ID, **changes: Any) -> dict[str, Any]:
    """A job as the API shows it."""
    has_ended = status not in {"queued", "running"}
    return {
        "id": job_id,
        "status": status,
        "created_at": "2026-11-21T10:00:00Z",
        "started_at": None if status == "queued" else "2026-11-21T10:00:01Z",
        "finished_at": "2026-11-21T10:00:09Z" if has_ended else None,
        "deadline_at": "2026-11-22T10:00:00Z",
        "expires_at": None,
        "source": {
            "name": "contract.pdf",
            "media_type": "application/pdf",
            "bytes": 3,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        },
        "options": {"task": "markdown", "engine": "auto", "priority": "interactive"},
        "pages": {"total": 2, "succeeded": 2 if has_ended else 0, "failed": 0, "running": 0},
        "queue": {"jobs_ahead": 1, "pages_ahead": 9} if status == "queued" else None,
        "eta_seconds": None,
        "usage": {"engine_seconds": 0.5},
        "error": None,
        "warnings": [],
        "metadata": {},
        "retry_of": None,
        "finished_as": None,
        "links": dict.fromkeys(("self", "pages", "result", "cancel"), "https://ocr.example/"),
        **changes,
    }


def a_page(number: int, **changes: Any) -> dict[str, Any]:
    """How a page stands, as the API shows it."""
    return {
        "page": number,
        "status": "succeeded",
        "width": 1240,
        "height": 1754,
        "attempts": 1,
        "confidence": 0.97,
        "needs_review": False,
        "error": None,
        **changes,
    }


def stream(*events: tuple[str, dict[str, Any]], broken: str = "") -> Answer:
    """Server-sent events, each with its number as its id; then a piece of one that never ends."""
    said = [
        f"event: {name}\nid: {number}\ndata: {json.dumps(data)}\n\n"
        for number, (name, data) in enumerate(events, 1)
    ]
    body = "retry: 10\n\n: keep-alive\n\n" + "".join(said) + broken
    return Answer(200, body, {"Content-Type": "text/event-stream; charset=utf-8"})


def problem(status: int, code: str, detail: str = "", **headers: str) -> Answer:
    """A refusal, as RFC 9457 has it; `retry_after="1"` is the header Retry-After."""
    body = {
        "type": f"urn:octavo:error:{code}",
        "title": f"The title of {code}.",
        "status": status,
        "detail": detail,
        "instance": JOB_PATH,
        "code": code,
        "retryable": status in {429, 503},
        "category": "policy",
        "phase": "admission",
        "request_id": "req_1",
    }
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, {"Content-Type": "application/problem+json", **named})


def test_the_scripted_answers_have_the_shapes_of_the_api() -> None:
    refusal = problem(404, "not_found").body

    for status in ("queued", "running", "succeeded"):
        shown = api.schemas.Job.model_validate(a_job(status))
        assert set(shown.model_dump(by_alias=True)) == set(a_job(status))
    assert set(api.schemas.PageSummary.model_validate(a_page(1)).model_dump()) == set(a_page(1))
    api.schemas.Problem.model_validate(refusal)


def test_the_client_knows_every_field_that_the_api_answers() -> None:
    assert unknown_fields(api.schemas.Job, client.models.Job) == {"links"}
    assert unknown_fields(api.schemas.PageSummary, client.models.PageSummary) == set()
    assert unknown_fields(api.schemas.Problem, client.models.Problem) == {"type"}
    assert unknown_fields(api.schemas.PageText, client.models.PageText) == set()
    assert unknown_fields(api.schemas.PageReset, client.models.PageReset) == set()
    assert unknown_fields(api.schemas.DeletionReceipt, client.models.DeletionReceipt) == set()
    assert unknown_fields(shared.document.Document, client.models.Document) == set()
    assert unknown_fields(shared.document.DocumentPage, client.models.DocumentPage) == set()
    assert unknown_fields(shared.document.DocumentBlock, client.models.Block) == set()
    assert unknown_fields(shared.document.Usage, client.models.Usage) == set()


def unknown_fields(of_api: type[BaseModel], of_client: type[BaseModel]) -> set[str]:
    return set(of_api.model_fields) - set(of_client.model_fields)
