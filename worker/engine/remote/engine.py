"""`remote`: pages are read by an OpenAI-compatible server, as vLLM is for DeepSeek-OCR.

What crosses the network is waited for by an event loop in a thread of its own; `step` hands over
what came of it. The markup is taken apart as that of our own engine is, without torch.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import ValidationError

from shared.config import InvalidSettings
from shared.document import Usage
from shared.errors import OctavoError
from worker.engine import golden, images
from worker.engine.deepseek import prompts, recognised
from worker.engine.deepseek.prompts import Use
from worker.engine.protocol import Delta, Done, Event, Failed, Read, Working
from worker.engine.remote import chat
from worker.engine.remote.answer import Answer
from worker.engine.remote.calls import Calls
from worker.engine.remote.errors import CallFailed, ServerRefuses
from worker.engine.remote.settings import RemoteSettings
from worker.engine.remote.shown import Shown

STEP_SECONDS = 0.05  # that a step waits for something to come


@dataclass(eq=False)
class _Page:
    """A page that is held, from its request to its answer."""

    request: Read
    use: Use = Use.TEXT
    size: tuple[int, int] = (0, 0)
    call: Future[None] | None = None  # once the server is asked
    is_told: bool = False
    begun_at: float = 0.0


_Came = tuple[_Page, Event | BaseException]


class RemoteEngine:
    """Has a bounded number of pages read side by side by a server."""

    name = "remote"

    def __init__(self, settings: RemoteSettings, *, golden_text: str = golden.SENTENCE) -> None:
        self.model = settings.model
        self.slots = settings.concurrency
        self.device = {"device": "remote", "server": urlsplit(settings.url).netloc}
        self.golden_text = golden_text
        self._settings = settings
        self._calls = Calls(settings)
        self._held: dict[int, _Page] = {}
        self._came: queue.SimpleQueue[_Came] = queue.SimpleQueue()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="calls", daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether it holds a page."""
        return bool(self._held)

    def submit(self, request: Read) -> None:
        """Hold a page."""
        self._held[request.id] = _Page(request)

    def tell(self, page_id: int) -> None:
        """Yield the text of a page from its next piece on, beginning with what there is of it."""
        if page := self._held.get(page_id):
            page.is_told = True

    def cancel(self, page_id: int) -> None:
        """Hold the page no longer; its request is closed, and the server hears of that."""
        page = self._held.pop(page_id, None)
        if page is not None and page.call is not None:
            page.call.cancel()

    def close(self) -> None:
        """Give up all that is held, and close the connections."""
        for page_id in list(self._held):
            self.cancel(page_id)
        asyncio.run_coroutine_threadsafe(self._calls.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def step(self) -> Iterator[Event]:
        """Ask for what there is room for, and say what has come."""
        for page in self._next():
            yield Working((page.request.id,))
            try:
                self._begin(page)
            except OctavoError as error:
                del self._held[page.request.id]
                yield Failed(page.request.id, error.code, error.detail)
        if asked := [page for page in self._held.values() if page.call is not None]:
            yield Working(tuple(page.request.id for page in asked))
            yield from self._hear()

    def _next(self) -> list[_Page]:
        new = [page for page in self._held.values() if page.call is None]
        return new[: max(0, self.slots - len(self._held) + len(new))]

    def _begin(self, page: _Page) -> None:
        """Raises PageUnreadable and InvalidOptions."""
        page.use = prompts.use_of(page.request.options)
        opened = images.opened(page.request.image)
        page.size, page.begun_at = opened.size, time.monotonic()
        body = chat.body(page.request, page.use, opened, self._settings)
        page.call = asyncio.run_coroutine_threadsafe(self._read(page, body), self._loop)

    def _hear(self) -> Iterator[Event]:
        try:
            came = self._came.get(timeout=STEP_SECONDS)
            while True:
                yield from self._pass_on(*came)
                came = self._came.get_nowait()
        except queue.Empty:
            return

    def _pass_on(self, page: _Page, came: Event | BaseException) -> Iterator[Event]:
        if self._held.get(page.request.id) is not page:
            return  # it was cancelled
        if isinstance(came, BaseException):
            yield Working(() if isinstance(came, ServerRefuses) else (page.request.id,))
            raise came
        if not isinstance(came, Delta):
            del self._held[page.request.id]
        yield came

    # In the thread of the calls

    async def _read(self, page: _Page, body: bytes) -> None:
        shown, untold = Shown(page.use), ""

        def hear(text: str) -> None:
            nonlocal untold
            untold += shown.more(text)
            if page.is_told and untold:
                delta = Delta(page.request.id, untold.encode(errors="replace"))
                self._came.put((page, delta))
                untold = ""

        try:
            answer = await self._calls.read(body, on_text=hear, on_again=shown.again)
            self._came.put((page, self._done(page, answer)))
        except CallFailed as failed:
            self._came.put((page, Failed(page.request.id, failed.code, str(failed))))
        except Exception as error:  # noqa: BLE001 - the next step raises it
            self._came.put((page, error))

    def _done(self, page: _Page, answer: Answer) -> Done:
        text = answer.text()
        facts = recognised.Page(
            use=page.use,
            size=page.size,
            mode=None,  # the server's matter
            finish_reason=answer.finish_reason,
            usage=_usage(answer, page.begun_at),
        )
        log_probs = answer.log_probs(text)
        recognition = recognised.said(text, log_probs, facts, engine=self.name, model=self.model)
        return Done.of(page.request, recognition)


def _usage(answer: Answer, begun_at: float) -> Usage:
    """As the server counts; the picture's tokens are those of the whole prompt."""
    prompt, output = answer.prompt_tokens, answer.output_tokens
    return Usage(
        vision_tokens=prompt,
        output_tokens=output,
        compression_ratio=round(output / prompt, 3) if output is not None and prompt else None,
        engine_seconds=round(time.monotonic() - begun_at, 3),
    )


def build() -> RemoteEngine:
    """The engine, for the server that the environment names. Raises InvalidSettings."""
    try:
        settings = RemoteSettings()
    except ValidationError as error:
        wrong = ", ".join(f"OCTAVO_REMOTE_{one['loc'][0]}".upper() for one in error.errors())
        raise InvalidSettings(f"missing or wrong: {wrong}") from None
    return RemoteEngine(settings)
