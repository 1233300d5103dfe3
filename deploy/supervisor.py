"""Keeps several processes running: starts them together, again when they die, stops them in order.

One thread does all of it, and nobody else touches the processes: on Linux a process is told to end
when the thread that started it does.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from deploy.backoff import FIRST_SECONDS, LOOP_SECONDS, Backoff, Restarts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from deploy.child import Child

POLL_SECONDS = 0.05  # while somebody waits for a start or an end
KEEP_SECONDS = 0.2
WATCH_SECONDS = 0.5
START_SECONDS = 300.0  # what an engine may take to load its weights
STOP_SECONDS = 20.0
"""After SIGTERM a process may work on for so long; then it is killed."""


class Failure(Exception):
    """Something without which the rest is no use; says what, and how its log ends."""


class Supervisor:
    """Groups of processes: all are started at once, and stopped one group after the other.

    One that dies while it is started is a Failure. Later it is started again after a while, until
    it is in a crash loop: then all are stopped and `wait` raises Failure.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Child]],
        *,
        watch: Callable[[], None] = lambda: None,
        tell: Callable[[str], None] = lambda _: None,
        restarts: Restarts | None = None,
    ) -> None:
        """`watch` is called now and then and may raise Failure; `tell` hears of every death."""
        self._groups = groups
        self._all = [child for group in groups for child in group]
        self._watch, self._tell = watch, tell
        self._restarts = restarts or Restarts()
        self._backoffs = {child.name: Backoff(self._restarts) for child in self._all}
        self._due: dict[str, float] = {}
        self._to_restart: deque[Child] = deque()
        self._ending: dict[str, float] = {}  # told to end, to be started again; killed when due
        self._is_asked = self._is_hurried = False  # no Event: a signal handler may not set one
        self._error: BaseException | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Return when all processes are ready, or `ask` was called; otherwise raises Failure."""
        self._thread.start()
        self._started.wait()
        if self._error is not None:
            self.wait()

    def wait(self) -> None:
        """Return when all processes were stopped; raises the Failure that made it so, if any."""
        self._ended.wait()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def ask(self) -> None:
        """Ask for the end and return at once; a signal handler may call it."""
        self._is_asked = True

    def hurry(self) -> None:
        """Kill what still runs rather than wait for it; a signal handler may call it."""
        self._is_asked = self._is_hurried = True

    def restart(self, name: str) -> None:
        """End one process in order and start it again; returns when the new one is ready.

        Raises Failure where that takes too long.
        """
        [child] = [child for child in self._all if child.name == name]
        before, deadline = child.pid, time.monotonic() + STOP_SECONDS + START_SECONDS
        self._to_restart.append(child)
        while not (child.is_ready and child.pid not in (before, None)):
            if time.monotonic() > deadline or self._ended.is_set():
                raise Failure(f"{name} was not ready again in time")
            time.sleep(POLL_SECONDS)

    def pids(self) -> dict[str, int]:
        """The process ids of those that run, by name."""
        found = {child.name: child.pid for child in self._all}
        return {name: pid for name, pid in found.items() if pid is not None}

    def _run(self) -> None:
        try:
            self._start_all()
            self._started.set()
            self._keep()
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits for the thread
            self._error = error
        finally:
            self._stop_all()
            self._started.set()
            self._ended.set()

    def _start_all(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        for child in self._all:
            child.start()
        while waited_for := [child for child in self._all if not child.is_ready]:
            for child in waited_for:
                child.read()
                if child.exit_status is not None:
                    raise Failure(f"{child.name} did not start: {child.how_it_ended()}")
            if time.monotonic() > deadline:
                late = waited_for[0]
                message = f"{late.name} was not ready within {START_SECONDS:.0f} s"
                raise Failure(f"{message}; its log, {late.log}, ends:{late.log_tail()}")
            if self._is_asked:
                return
            time.sleep(POLL_SECONDS)

    def _keep(self) -> None:
        watch_at = time.monotonic()
        while not self._is_asked:
            time.sleep(KEEP_SECONDS)
            if time.monotonic() >= watch_at:
                self._watch()
                watch_at = time.monotonic() + WATCH_SECONDS
            while self._to_restart:
                child = self._to_restart.popleft()
                child.send(signal.SIGTERM)
                self._ending[child.name] = time.monotonic() + STOP_SECONDS
            for child in self._all:
                child.read()
                self._keep_one(child)

    def _keep_one(self, child: Child) -> None:
        due = self._due.get(child.name)
        if child.name in self._ending:
            self._restart_if_ended(child)
        elif due is None and child.exit_status is not None:
            self._due[child.name] = self._mourn(child)
        elif due is not None and time.monotonic() >= due:
            del self._due[child.name]
            child.start()

    def _restart_if_ended(self, child: Child) -> None:
        if child.exit_status is not None or time.monotonic() > self._ending[child.name]:
            del self._ending[child.name]
            child.start()  # which kills what is left

    def _mourn(self, child: Child) -> float:
        """When to start it again; raises Failure where that is no use."""
        now = time.monotonic()
        if child.exit_status == 0:  # somebody told it to end, and it did
            self._tell(f"{child.name} ended; starting it again")
            return now + FIRST_SECONDS
        delay = self._backoffs[child.name].died(now)
        if delay is None:
            often = f"{self._restarts.loop_deaths} times within {LOOP_SECONDS:.0f} s"
            raise Failure(f"{child.name} died {often}, at last with {child.how_it_ended()}")
        how = child.how_it_ended().partition(";")[0]
        self._tell(f"{child.name} died ({how}); starting it again in {delay:g} s")
        return now + delay

    def _stop_all(self) -> None:
        self._tell("stopping; work that was begun is finished first")
        for group in self._groups:
            for child in group:
                child.send(signal.SIGTERM)
            self._await_end(group)

    def _await_end(self, group: Sequence[Child]) -> None:
        deadline = time.monotonic() + STOP_SECONDS
        while any(child.pid is not None for child in group):
            if self._is_hurried or time.monotonic() > deadline:
                break
            for child in group:
                child.read()
            time.sleep(POLL_SECONDS)
        for child in group:
            child.end()
