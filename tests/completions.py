"""An OpenAI-compatible server for tests: it reads nothing, and fails in every way that is asked for.

What it says is a script, one entry a request; the last entry answers all further ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
Say = Callable[["Answering"], Awaitable[None]]


@dataclass
class Answering:
    """A request that is being answered, with the means to do so."""

    request: dict[str, Any]
    headers: dict[str, str]
    send: Send
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def begin(
        self, status: int = 200, media_type: str = "text/event-stream", **others: str
    ) -> None:
        headers = {"content-type": media_type} | others
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (name.replace("_", "-").encode(), value.encode())
                    for name, value in headers.items()
                ],
            }
        )

    async def piece(self, data: bytes, *, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def event(self, event: object) -> None:
        said = event if isinstance(event, str) else json.dumps(event)
        await self.piece(f"data: {said}\n\n".encode())


def chunk(
    text: str = "", *, reason: str | None = None, logprob: float | None = None
) -> dict[str, Any]:
    """A chunk of a stream; with `logprob` the text is one token."""
    token = {"token": text, "logprob": logprob, "bytes": list(text.encode())}
    content = [token] if logprob is not None and text else []
    return {
        "object": "chat.completion.chunk",
        "choices": [
            {
                "index": 0,
                "delta": {"content": text},
                "finish_reason": reason,
                "logprobs": {"content": content},
            }
        ],
    }


def usage(prompt: int, completion: int) -> dict[str, Any]:
    """The last chunk of a stream."""
    return {"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}}


def saying(
    *tokens: str, reason: str = "stop", logprob: float | None = -0.1, pause: float = 0
) -> Say:
    """Say these tokens, a chunk each."""

    async def say(to: Answering) -> None:
        await to.begin()
        await to.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
        for token in tokens:
            await to.event(chunk(token, logprob=logprob))
            await asyncio.sleep(pause)
        await to.event(chunk(reason=reason))
        await to.event(usage(270, len(tokens)))
        await to.event("[DONE]")
        await to.piece(b"", more=False)

    return say


def whole(answer: object, **headers: str) -> Say:
    """Answer with one piece of JSON, as servers do that do not stream."""

    async def say(to: Answering) -> None:
        await to.begin(200, "application/json", **headers)
        said = answer if isinstance(answer, str) else json.dumps(answer)
        await to.piece(said.encode(), more=False)

    return say


def status(code: int, **headers: str) -> Say:
    """Refuse."""

    async def say(to: Answering) -> None:
        await to.begin(code, "application/json", **headers)
        await to.piece(b'{"error": {"message": "no"}}', more=False)

    return say


def events(*said: object) -> Say:
    """Send these events and end."""

    async def say(to: Answering) -> None:
        await to.begin()
        for event in said:
            await to.event(event)
        await to.piece(b"", more=False)

    return say


async def cut(to: Answering) -> None:
    """Die in the middle of an answer."""
    await to.begin(content_length="1000")
    await to.event(chunk("half", logprob=-0.1))
    raise ConnectionAbortedError


async def silent(to: Answering) -> None:
    """Take the page and say nothing until the client goes."""
    await to.gone.wait()


async def endless(to: Answering) -> None:
    """Talk until the client goes."""
    await to.begin()
    number = 0
    while not to.gone.is_set():
        number += 1
        await to.event(chunk(f"word{number} " * 500))
        await asyncio.sleep(0)


async def one_line(to: Answering) -> None:
    """A line that does not end."""
    await to.begin()
    while not to.gone.is_set():
        await to.piece(b"data: " + b"x" * 65536)
        await asyncio.sleep(0)


class Completions:
    """The ASGI application."""

    def __init__(self, *script: Say) -> None:
        self.script: Sequence[Say] = script
        self.requests: list[Answering] = []
        self.at_once = self.most_at_once = 0
        self.closed = 0  # by the client, before the answer was whole

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        to = Answering(json.loads(body), headers, send)
        say = self.script[min(len(self.requests), len(self.script) - 1)]
        self.requests.append(to)
        await self._answer(say, to, receive)

    async def _answer(self, say: Say, to: Answering, receive: Any) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        watch = asyncio.create_task(self._watch(to, receive))
        try:
            await say(to)
        finally:
            self.at_once -= 1
            watch.cancel()

    async def _watch(self, to: Answering, receive: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.closed += 1
        to.gone.set()
