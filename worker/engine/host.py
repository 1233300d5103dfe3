"""The engine, as the worker's threads see it: pages in, recognitions out, whatever it dies of.

The engine lives in a child process; a supervisor thread spawns it, talks with it, watches it, and
spawns another when it is gone. That thread lives as long as the host: on Linux the child dies with
the thread that spawned it.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import structlog

from shared.errors import EngineUnavailable, PageUnreadable
from shared.options import Task
from worker.engine.inbox import Inbox
from worker.engine.life import Life, LifeEnded, Limits
from worker.engine.protocol import MAX_PAYLOAD_BYTES, PageOptions, Read, Ready
from worker.engine.reading import Reading, Vitals
from worker.engine.registry import ENGINES
from worker.engine.spawn import Child

MAX_FAILED_STARTS = 3
FAILED_STARTS_SECONDS = 600.0
RESPAWN_SECONDS = 0.5  # a failed start

log = structlog.get_logger()


class EngineHost:
    """One engine in a process of its own. `submit` and what it gives may be used by any thread."""

    def __init__(
        self,
        name: str,
        *,
        page_seconds: float,
        stall_seconds: float,
        max_recognition_bytes: int,
        start_seconds: float = 300,
        cancel_seconds: float = 10,
    ) -> None:
        """An engine of that name, not started yet.

        A page that is not read `page_seconds` after its first touch ends in PageTimeout; a child
        that then does not drop it within `cancel_seconds`, or shows no sign of progress for
        `stall_seconds` while it holds pages, is killed. Let a stall be shorter than a page: then a
        hung engine ends in EngineDied for all, and not in PageTimeout for those it held longest.
        Raises EngineUnavailable where there is no such engine.
        """
        if name not in ENGINES:
            raise EngineUnavailable(f"There is no engine {name}; there are {', '.join(ENGINES)}.")
        self.name = name
        self.vitals = Vitals()
        self._limits = Limits(
            page_seconds=page_seconds,
            cancel_seconds=cancel_seconds,
            stall_seconds=stall_seconds,
            start_seconds=start_seconds,
            max_recognition_bytes=max_recognition_bytes,
        )
        self._ids = itertools.count(1)
        self._ready: Ready | None = None
        self._pid = 0
        self._failed_starts: deque[float] = deque(maxlen=MAX_FAILED_STARTS)
        self._last_words = ""
        self._inbox = Inbox()
        self._broken = False
        self._settled = threading.Event()  # started, or never will be
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(
            target=self._supervise, name=f"engine-{name}", daemon=True
        )

    # What any thread may ask

    @property
    def broken(self) -> bool:
        """Whether it gave up: the engine did not start, three times within ten minutes."""
        return self._broken

    @property
    def pid(self) -> int:
        """The engine's process; 0 before its first start."""
        return self._pid

    @property
    def slots(self) -> int:
        """How many pages the engine may hold at once."""
        return self._facts().slots

    @property
    def model(self) -> str:
        """Which weights the engine reads with."""
        return self._facts().model

    @property
    def device(self) -> dict[str, str]:
        """What the engine runs on, in words."""
        return self._facts().device

    def _facts(self) -> Ready:
        assert self._ready is not None, "the engine was not started"
        return self._ready

    def start(self) -> None:
        """Spawn the engine; returns when it has read its golden page.

        Raises EngineUnavailable, with what the engine wrote last, where it does not come up.
        """
        self._supervisor.start()
        self._settled.wait()
        if self._ready is None:
            raise EngineUnavailable(f"The engine {self.name} did not start.\n{self._last_words}")

    def await_ready(self, seconds: float) -> bool:
        """Whether the engine takes pages now, or does within so many seconds."""
        return self.vitals.serving.wait(seconds)

    def stop(self) -> None:
        """End the engine. Pages that it holds end in EngineDied, nobody blamed."""
        self._stopping.set()
        self._inbox.ring()
        self._supervisor.join()

    def submit(
        self,
        image: bytes,
        *,
        task: Task,
        mode: str | None = None,
        prompt: str | None = None,
        languages: Sequence[str] = (),
        max_output_tokens: int | None = None,
        among: int | None = None,
    ) -> Reading:
        """Have a page read, a JPEG or PNG; what comes of it is told by the Reading.

        `among` is how many pages, this one included, the engine may hold meanwhile: for a page
        that is suspected of having killed it. A page waits here while the engine has no room or is
        being spawned again; where that fails it ends, nobody blamed.
        Raises EngineUnavailable where the engine is stopped or broken, PageUnreadable where the
        image has too many bytes.
        """
        if len(image) > MAX_PAYLOAD_BYTES:
            raise PageUnreadable(f"The page image has more than {MAX_PAYLOAD_BYTES} bytes.")
        request = Read(
            next(self._ids),
            hashlib.sha256(image).hexdigest(),
            PageOptions(
                task=task,
                mode=mode,
                prompt=prompt,
                languages=tuple(languages),
                max_output_tokens=max_output_tokens,
            ),
            image,
        )
        reading = Reading(
            request,
            vitals=self.vitals,
            among=among,
            on_glance=self._inbox.tell,
            on_cancel=self._inbox.cancel,
        )
        if not self._inbox.submit(reading):
            raise self._gone()
        return reading

    def _gone(self) -> EngineUnavailable:
        error = EngineUnavailable(f"The engine {self.name} is gone.")
        error.blames = False
        return error

    # The supervisor

    def _supervise(self) -> None:
        try:
            while not self._stopping.is_set() and not self._broken:
                self._live()
        finally:
            self._broken = not self._stopping.is_set()
            for reading in self._inbox.close():
                reading.fail(self._gone())
            self._settled.set()

    def _live(self) -> None:
        try:
            child = Child(self.name)
        except OSError as error:  # no memory, no processes
            self._start_failed({"why": str(error)})
            return
        life = Life(child, inbox=self._inbox, limits=self._limits, vitals=self.vitals)
        end = LifeEnded("the supervisor failed", blames=False)
        try:
            self._serve(life)
        except LifeEnded as ended:
            end = ended
        finally:
            self.vitals.serving.clear()
            self._mourn(life, life.bury(end))

    def _serve(self, life: Life) -> None:
        while not self._stopping.is_set():
            life.turn()
            if life.ready is not self._ready and life.ready is not None:
                self._ready = life.ready
                self._pid = life.pid
                log.info("engine_started", engine=self.name, **life.facts())
                self.vitals.serving.set()
                self._settled.set()
        raise LifeEnded("stopped", blames=False)

    def _mourn(self, life: Life, facts: dict[str, Any]) -> None:
        if self._stopping.is_set():
            log.info("engine_stopped", engine=self.name, **facts)
        elif life.ready is None:
            self._start_failed(facts)
        else:
            self.vitals.deaths += 1
            log.error("engine_died", engine=self.name, **facts)

    def _start_failed(self, facts: dict[str, Any]) -> None:
        """Give back the pages that wait, and wait a little before the next try, or give up."""
        while self._inbox.waiting:
            self._inbox.waiting.popleft().fail(self._gone())
        self._last_words = facts.get("output", "")
        self._failed_starts.append(time.monotonic())
        log.error("engine_start_failed", engine=self.name, **facts)
        failed = len(self._failed_starts)
        recent = self._failed_starts[-1] - self._failed_starts[0] <= FAILED_STARTS_SECONDS
        if failed == MAX_FAILED_STARTS and recent:
            self._broken = True
            log.critical("engine_broken", engine=self.name)
        else:
            self._stopping.wait(RESPAWN_SECONDS * failed)
