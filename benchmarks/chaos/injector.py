"""Makes faults happen to a platform: signals to its processes, misconduct before its store."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from benchmarks.chaos.faults import MODES, Fault, Kind
from benchmarks.chaos.proxy import Proxy
from deploy.local import Platform

WAIT_SECONDS = 12.0
"""How long a fault waits for a victim, which may be dead of the last one."""
LOOK_SECONDS = 0.05
STOP_SECONDS = 2.0

PROCESSES = {
    Kind.KILL_ENGINE_WORKER: "engine-worker",
    Kind.KILL_CPU_WORKER: "cpu-worker",
    Kind.KILL_DISPATCHER: "dispatcher",
    Kind.KILL_SWEEPER: "sweeper",
    Kind.KILL_GATEWAY: "gateway",
    Kind.KILL_VALKEY: "valkey",
    Kind.KILL_STORE: "seaweedfs",
    Kind.RESTART_POSTGRES: "postgres",
    Kind.FREEZE_ENGINE_WORKER: "engine-worker",
    Kind.FREEZE_CPU_WORKER: "cpu-worker",
    Kind.FREEZE_DISPATCHER: "dispatcher",
    Kind.FREEZE_VALKEY: "valkey",
    Kind.DRAIN_ENGINE_WORKER: "engine-worker",
    Kind.DRAIN_CPU_WORKER: "cpu-worker",
}
"""Whom a fault strikes: the process of that name, or one of those numbered after it."""

CHILDREN = {
    Kind.KILL_ENGINE: ("engine-worker", "worker.engine.child"),
    Kind.FREEZE_ENGINE: ("engine-worker", "worker.engine.child"),
    Kind.KILL_RENDERER: ("cpu-worker", "zygote"),
    Kind.KILL_ZYGOTE: ("cpu-worker", "zygote"),
}
"""Whose descendant it strikes, and what stands in that one's command line."""


@dataclass(frozen=True)
class Happened:
    """A fault that struck, with its beginning and end on the monotonic clock."""

    fault: Fault
    began: float
    ended: float


@dataclass
class Injector:
    """Does what a schedule says, each fault in a thread of its own, and undoes it."""

    platform: Platform
    proxy: Proxy
    on_kill: Callable[[int, bool], None]
    """Hears of each worker that was killed, just after: its pid, and whether all else is quiet."""
    happened: list[Happened] = field(default_factory=list)
    missed: list[Fault] = field(default_factory=list)
    """What found no victim."""
    _store: threading.Lock = field(default_factory=threading.Lock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def run(self, faults: Sequence[Fault]) -> None:
        """Return when all of them have happened and are over, or `stop` was called.

        A quiet one waits for the end of all before it; where that is late, it comes as much later,
        and so do those after it.
        """
        began, ends = time.monotonic(), 0.0
        threads: list[threading.Thread] = []
        for fault in sorted(faults, key=lambda fault: fault.at):
            if fault.is_quiet:
                self._await(threads)
                began = max(began, time.monotonic() - ends)
            if self._ended.wait(max(0.0, began + fault.at - time.monotonic())):
                break
            ends = max(ends, fault.at + fault.seconds)
            threads.append(threading.Thread(target=self._happen, args=(fault,)))
            threads[-1].start()
        self._await(threads)

    def _await(self, threads: Sequence[threading.Thread]) -> None:
        for thread in threads:
            thread.join()

    def stop(self) -> None:
        """End what goes on, and begin nothing more."""
        self._ended.set()

    def _happen(self, fault: Fault) -> None:
        began = time.monotonic()
        if self._inject(fault):
            self.happened.append(Happened(fault, began, time.monotonic()))
        else:
            self.missed.append(fault)

    def _inject(self, fault: Fault) -> bool:
        if fault.kind in MODES:
            with self._store, self.proxy.misbehaving(MODES[fault.kind]):
                self._ended.wait(fault.seconds)
            return True
        if fault.kind is Kind.FLUSH_VALKEY:
            return self._flush()
        victim = self._victim(fault)
        if victim is None:
            return False
        with suppress(psutil.NoSuchProcess):
            self._strike(fault, victim)
            return True
        return False

    def _strike(self, fault: Fault, victim: psutil.Process) -> None:
        match fault.kind:
            case Kind.RESTART_POSTGRES:
                victim.send_signal(signal.SIGQUIT)  # "immediate": no checkpoint, and recovery after
            case Kind.DRAIN_ENGINE_WORKER | Kind.DRAIN_CPU_WORKER:
                victim.terminate()
            case _ if fault.seconds:
                self._freeze(victim, fault.seconds)
            case _:
                victim.kill()
                if fault.kind in (Kind.KILL_ENGINE_WORKER, Kind.KILL_CPU_WORKER):
                    self.on_kill(victim.pid, fault.is_quiet)

    def _freeze(self, victim: psutil.Process, seconds: float) -> None:
        victim.suspend()
        self._until_stopped(victim)
        self._ended.wait(seconds)
        victim.resume()

    def _until_stopped(self, victim: psutil.Process) -> None:
        """SIGSTOP is not instant."""
        deadline = time.monotonic() + STOP_SECONDS
        while victim.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)

    def _flush(self) -> bool:
        with (
            suppress(redis.RedisError),
            redis.Redis.from_url(
                self.platform.servers.broker, socket_timeout=2, retry=Retry(NoBackoff(), 0)
            ) as valkey,
        ):
            valkey.flushall()
            return True
        return False

    def _victim(self, fault: Fault) -> psutil.Process | None:
        """The process to strike; waits for one that is about to be started again."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline and not self._ended.is_set():
            with suppress(psutil.NoSuchProcess):
                found = self._find(fault)
                if found:
                    return found[fault.draw % len(found)]
            time.sleep(LOOK_SECONDS)
        return None

    def _find(self, fault: Fault) -> list[psutil.Process]:
        if fault.kind in PROCESSES:
            return self._named(PROCESSES[fault.kind])
        owner, marker = CHILDREN[fault.kind]
        children = [
            child
            for worker in self._named(owner)
            for child in worker.children(recursive=True)
            if marker in " ".join(child.cmdline())
        ]
        if fault.kind is Kind.KILL_RENDERER:  # which the zygote forks: they look alike
            return [child for child in children if child.ppid() in {one.pid for one in children}]
        return children[:1] if fault.kind is Kind.KILL_ZYGOTE else children

    def _named(self, name: str) -> list[psutil.Process]:
        pids = self.platform.pids()
        found = [pids[each] for each in sorted(pids) if each.rstrip("-0123456789") == name]
        return [process for process in map(psutil.Process, found) if process.is_running()]
