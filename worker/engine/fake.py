"""A deterministic engine that reads nothing, for tests and for measuring all but the reading.

What it does is set by the environment, which the host hands on:

    OCTAVO_FAKE_SLOTS          how many pages it holds at once (64)
    OCTAVO_FAKE_DELAY_SECONDS  how long each page takes, all held ones side by side (0)
    OCTAVO_FAKE_SLOW_SECONDS   how long a page with the mark SLOW takes (5)
    OCTAVO_FAKE_START_SECONDS  how long it takes to start (0)
    OCTAVO_FAKE_FAULTS         which faults it has, `hang,segfault:1,golden:2+`; with a number, only
                               that many times, over all its lives; with a plus, after so many
    OCTAVO_FAKE_STATE          a folder, in which it counts those times

Marks are looked for only where there are faults, because that needs the page's pixels.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from shared.document import BlockKind, FinishReason
from shared.errors import OctavoError, PageUnreadable
from worker.engine import golden, images
from worker.engine.faults import Fault, marked
from worker.engine.protocol import Delta, Done, Event, Failed, Read, Working

VISION_TOKENS = 256
STEP_SECONDS = 0.005
WORD = "again"
WORDS_A_STEP = 50
MAX_ENDLESS_WORDS = 2_000  # where the page has no limit of its own
TOO_LONG_BYTES = 33 * 10**6  # three times in an answer
POISON_SECONDS = 0.2  # until it works: time for others to come


class DeviceError(RuntimeError):
    """The device fails, and would until this process ends."""


class FaultBook:
    """Which faults the engine has, and how often still."""

    def __init__(self, faults: str, state: Path | None) -> None:
        """`faults` as in OCTAVO_FAKE_FAULTS. Raises ValueError for a fault that is none."""
        self._state = state
        self._strikes: dict[Fault, Callable[[int], bool] | None] = {}
        for word in filter(None, faults.split(",")):
            name, _, times = word.partition(":")
            self._strikes[Fault(name)] = _strikes(times) if times else None

    def __bool__(self) -> bool:
        return bool(self._strikes)

    def strikes(self, fault: Fault) -> bool:
        """Whether the fault happens now; if so, it is counted."""
        if fault not in self._strikes:
            return False
        at = self._strikes[fault]
        return at is None or at(self._count(fault))

    def _count(self, fault: Fault) -> int:
        assert self._state is not None, "a fault with a number needs OCTAVO_FAKE_STATE"
        count = self._state / fault
        with count.open("ab") as file:  # appending is atomic, and survives what the fault does
            file.write(b"x")
        return count.stat().st_size


def _strikes(times: str) -> Callable[[int], bool]:
    """Whether a fault happens the n-th time: `2` says the first two times, `2+` all after them."""
    limit = int(times.removesuffix("+"))
    return (lambda n: n > limit) if times.endswith("+") else (lambda n: n <= limit)


@dataclass
class _Page:
    """A page that is held; the first step that touches it fills in the rest."""

    request: Read
    begun_at: float | None = None
    size: tuple[int, int] = (0, 0)
    fault: Fault | None = None
    words: int = 0  # of an endless text
    is_told: bool = False
    told: int = 0  # words of it

    @property
    def limit(self) -> int:
        return self.request.options.max_output_tokens or MAX_ENDLESS_WORDS


class FakeEngine:
    """Says of each page its checksum and size."""

    name = "fake"
    model = "fake-1"
    golden_text = "page golden 800x160"

    def __init__(
        self, *, slots: int, delay_seconds: float, slow_seconds: float, faults: FaultBook
    ) -> None:
        self.slots = slots
        self.device = {"device": "none"}
        self._delay_seconds = delay_seconds
        self._slow_seconds = slow_seconds
        self._faults = faults
        self._held: dict[int, _Page] = {}

    @property
    def busy(self) -> bool:
        """Whether it holds a page."""
        return bool(self._held)

    def submit(self, request: Read) -> None:
        """Hold a page."""
        self._held[request.id] = _Page(request)

    def tell(self, page_id: int) -> None:
        """Yield the words of a page from now on, those first that are due."""
        if page := self._held.get(page_id):
            page.is_told = True

    def cancel(self, page_id: int) -> None:
        """Hold the page no longer."""
        self._held.pop(page_id, None)

    def step(self) -> Iterator[Event]:
        """Begin each new page by itself, then go on with all of them together."""
        for page in [page for page in self._held.values() if page.begun_at is None]:
            yield Working((page.request.id,))
            yield from self._begin(page)
        if self._held:
            yield Working(tuple(self._held))
            yield from self._go_on()

    def _begin(self, page: _Page) -> Iterator[Event]:
        page.begun_at = time.monotonic()
        try:
            page.size = images.opened(page.request.image).size
            page.fault = self._fault_of(page.request)
        except PageUnreadable as error:
            yield self._failed(page, error)
            return
        self._suffer(page.fault)
        if page.fault is Fault.UNREADABLE:
            yield self._failed(page, PageUnreadable("The page asks not to be read."))
        elif self._is_due(page):
            yield from self._answer(page)

    def _fault_of(self, request: Read) -> Fault | None:
        if not self._faults:
            return None
        fault = Fault.GOLDEN if request.id == golden.GOLDEN_ID else marked(request.image)
        return fault if fault and self._faults.strikes(fault) else None

    def _suffer(self, fault: Fault | None) -> None:
        match fault:
            case Fault.HANG:
                signal.pause()
            case Fault.SEGFAULT:
                ctypes.string_at(0)
            case Fault.KILLED:
                os.kill(os.getpid(), signal.SIGKILL)
            case Fault.OUT_OF_MEMORY:
                bytearray(sys.maxsize)
            case Fault.DEVICE_ERROR:
                raise DeviceError("the device failed")

    def _go_on(self) -> Iterator[Event]:
        time.sleep(STEP_SECONDS)
        for page in list(self._held.values()):
            if page.fault is Fault.POISON and self._is_due(page):
                ctypes.string_at(0)
            if page.fault is Fault.ENDLESS:
                page.words = min(page.words + WORDS_A_STEP, page.limit)
            yield from self._news(page)
            if self._is_due(page):
                yield from self._answer(page)

    def _news(self, page: _Page) -> Iterator[Event]:
        """What is due of the words of a page that is told: they come evenly over its time."""
        if not page.is_told:
            return
        words = _text(page).split()
        due = len(words) if page.fault is Fault.ENDLESS else int(len(words) * self._progress(page))
        fresh, page.told = words[page.told : due], max(page.told, due)
        if fresh:
            said = "".join(f"{word} " for word in fresh)
            yield Delta(page.request.id, said.encode(errors="surrogatepass"))

    def _is_due(self, page: _Page) -> bool:
        if page.fault is Fault.ENDLESS:
            return page.words >= page.limit
        return self._progress(page) >= 1

    def _progress(self, page: _Page) -> float:
        """How much of a page's time has gone by, 1 at most."""
        assert page.begun_at is not None
        waits = {Fault.SLOW: self._slow_seconds, Fault.POISON: POISON_SECONDS}
        wait = waits.get(page.fault, self._delay_seconds) if page.fault else self._delay_seconds
        passed = time.monotonic() - page.begun_at
        return passed / wait if passed < wait else 1

    def _failed(self, page: _Page, error: OctavoError) -> Failed:
        del self._held[page.request.id]
        return Failed(page.request.id, error.code, error.detail)

    # Answers

    def _answer(self, page: _Page) -> Iterator[Event]:
        yield from self._news(page)
        del self._held[page.request.id]
        answer = _answer(page)
        if page.fault is Fault.WRONG_ANSWER:
            yield replace(answer, id=answer.id + 1_000_000)
            yield replace(_answer(replace(page, fault=Fault.GOLDEN)), checksum="0" * 64)
        yield answer
        if page.fault is Fault.DOUBLE_ANSWER:
            yield answer


def _text(page: _Page) -> str:
    """What the fake reads: the same for the same image."""
    match page.fault:
        case Fault.EMPTY:
            return ""
        case Fault.ENDLESS:
            return " ".join([WORD] * page.words)
        case Fault.GARBAGE:
            return "nul \0, escape \x1b[2J, surrogate \ud800, rest"
        case Fault.TOO_LONG:
            return "x" * TOO_LONG_BYTES
        case Fault.GOLDEN:
            return "misread"
    return f"page {page.request.checksum[:16]} {page.size[0]}x{page.size[1]}"


def _answer(page: _Page) -> Done:
    if page.fault is Fault.NONSENSE:
        said: object = {"engine": ["no", "recognition"]}
    else:
        said = _recognition(page)
    return Done(page.request.id, page.request.checksum, json.dumps(said).encode())


def _recognition(page: _Page) -> dict[str, object]:
    """A Recognition as a dict, because garbage would not pass as the real one."""
    assert page.begun_at is not None
    text, (width, height) = _text(page), page.size
    tokens = page.words or len(text.split())
    return {
        "engine": FakeEngine.name,
        "model": FakeEngine.model,
        "mode": _mode(page.request.options.mode),
        "markdown": text,
        "text": text,
        "blocks": [
            {
                "kind": BlockKind.LINE,
                "text": text,
                "box": {"x0": 0, "y0": 0, "x1": width, "y1": height},
                "confidence": 1.0,
            }
        ],
        "confidence": 1.0,
        "confidence_min": 1.0,
        "finish_reason": _finish_reason(page),
        "usage": {
            "vision_tokens": VISION_TOKENS,
            "output_tokens": tokens,
            "compression_ratio": round(tokens / VISION_TOKENS, 3),
            "engine_seconds": round(time.monotonic() - page.begun_at, 3),
        },
    }


def _finish_reason(page: _Page) -> FinishReason:
    if page.fault is Fault.CURED and page.request.options.mode != "gundam":
        return FinishReason.REPETITION
    return FinishReason.LENGTH if page.words else FinishReason.STOP


def _mode(asked: str | None) -> str:
    return "base" if asked in (None, "auto") else asked


def build() -> FakeEngine:
    """The fake that the environment describes."""
    state = os.environ.get("OCTAVO_FAKE_STATE")
    faults = FaultBook(os.environ.get("OCTAVO_FAKE_FAULTS", ""), Path(state) if state else None)
    time.sleep(float(os.environ.get("OCTAVO_FAKE_START_SECONDS", "0")))
    if faults.strikes(Fault.START):
        raise DeviceError("the device is not there")
    return FakeEngine(
        slots=int(os.environ.get("OCTAVO_FAKE_SLOTS", "64")),
        delay_seconds=float(os.environ.get("OCTAVO_FAKE_DELAY_SECONDS", "0")),
        slow_seconds=float(os.environ.get("OCTAVO_FAKE_SLOW_SECONDS", "5")),
        faults=faults,
    )
