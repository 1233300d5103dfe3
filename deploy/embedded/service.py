"""One server as a child process: how it is launched, found again, used and ended.

It outlives whoever started it, until it is told to stop. Which server it is, its module says.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from deploy.embedded import ports
from deploy.embedded.errors import PortTaken, ServiceError
from deploy.embedded.file_lock import try_lock

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.embedded.settings import Settings

POLL_SECONDS = 0.02
LOG_LINES = 8


@dataclass(frozen=True)
class Launch:
    """A server's command line, additions to its environment, and whose process it is to be."""

    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    uid: int | None = None


class Service(ABC):
    """One server of one directory.

    The directory holds the server's data below its name, its log `NAME.log` (the one before as
    `NAME.log.1`) and `NAME.lock`, which the process holds for as long as it lives.
    """

    name: ClassVar[str]
    port_count: ClassVar[int] = 1
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    client_errors: ClassVar[tuple[type[Exception], ...]]
    """What a client raises while the server is not ready."""

    def __init__(self, directory: Path, settings: Settings) -> None:
        self.directory = directory / self.name
        self.log = directory / f"{self.name}.log"
        self.settings = settings
        self._lock = directory / f"{self.name}.lock"
        # Two threads that look at the lock at once would each take the other for the server.
        self._mutex = threading.RLock()
        self._child: subprocess.Popen[bytes] | None = None
        self._found_running = False

    @property
    def ports(self) -> list[int]:
        """The server's ports, the one for clients first; none before the first start."""
        return self.settings.ports.get(self.name, [])

    @property
    def pid(self) -> int | None:
        """The process id of the server, None where it does not run."""
        with self._mutex:
            text = self._lock.read_text() if self.is_running() else ""
        return int(text) if text else None

    @abstractmethod
    def prepare(self) -> Launch:
        """Make on disk what the server needs, if it is not there, and say how to launch it."""

    @abstractmethod
    def provision(self) -> None:
        """Make the database or bucket that clients expect, if it is not there."""

    @abstractmethod
    def use(self) -> None:
        """Do one small thing that clients do; raises one of `client_errors` if it fails."""

    def barred_ports(self) -> set[int]:
        """Ports that nobody listens on, and that are of no use all the same."""
        return set()

    def choose_ports(self) -> None:
        """Claim free ports: those of the last start, unless they are gone."""
        barred = self.barred_ports()
        are_good = barred.isdisjoint(self.ports) and all(map(ports.claim, self.ports))
        if len(self.ports) != self.port_count or not are_good:
            self.release_ports()
            taken = {port for each in self.settings.ports.values() for port in each}
            self.settings.ports[self.name] = ports.choose(self.port_count, taken=taken | barred)

    def release_ports(self) -> None:
        """Let others have the ports, once the server is down."""
        ports.release(self.ports)

    def launch(self) -> bool:
        """Start the process unless it runs; return whether it was started.

        The child holds a lock for as long as it lives, which tells whoever asks later that it
        runs. A process id alone might be another's by then.
        """
        with self._mutex:
            lock = try_lock(self._lock)
            self._found_running = lock is None
            if lock is None:
                return False
            try:
                self._reap()
                self.directory.mkdir(mode=0o700, exist_ok=True)
                launch = self.prepare()
                os.truncate(lock, 0)  # so that nobody takes a dead process's id for this one's
                self._child = self._spawn(launch, lock)
                os.pwrite(lock, str(self._child.pid).encode(), 0)
            finally:
                os.close(lock)
            return True

    def await_ready(self, deadline: float) -> None:
        """Return when clients can use the server; `deadline` is in seconds of the monotonic clock.

        ServiceError if it dies (PortTaken if for want of a port) or time runs out. One that was found running and then is gone was
        on its way out (killed, its last process still about): that one is launched.
        """
        while error := self._first_error():
            if not self.is_running():
                if not self._found_running:
                    raise self._death() from error
                self.launch()
            elif time.monotonic() > deadline:
                message = f"{self.name} is not ready: {error}{self._log_tail()}"
                raise ServiceError(message) from error
            time.sleep(POLL_SECONDS)

    def await_use(self, deadline: float) -> None:
        """Return when clients can use the server that somebody else launches, or raise."""
        while error := self._first_error():
            if time.monotonic() > deadline:
                message = f"{self.name} is not ready: {error}{self._log_tail()}"
                raise ServiceError(message) from error
            time.sleep(POLL_SECONDS)

    def is_running(self) -> bool:
        """Whether the process, or a child it left behind, is alive."""
        with self._mutex:
            lock = try_lock(self._lock)
            if lock is None:
                return True
            os.close(lock)
            self._reap()
            return False

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def await_end(self, deadline: float) -> None:
        """Return when the process is gone; past the deadline it is killed."""
        while self.is_running():
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _reap(self) -> None:
        """Let go of our child, which is dead or about to be, so that it does not stay as a zombie."""
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _death(self) -> ServiceError:
        is_taken = not all(map(ports.is_free, self.ports))
        kind = PortTaken if is_taken else ServiceError
        return kind(f"{self.name} died at start{self._log_tail()}")

    def _first_error(self) -> Exception | None:
        try:
            self.provision()
            self.use()
        except self.client_errors as error:
            return error
        return None

    def _spawn(self, launch: Launch, lock: int) -> subprocess.Popen[bytes]:
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("wb") as log:
            return subprocess.Popen(  # noqa: S603 - a program of a pinned package
                launch.argv,
                env={**os.environ, **launch.environment},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for whoever started the servers, who then stops them in order.
                start_new_session=True,
                pass_fds=(lock,),
                user=launch.uid,
                group=launch.uid,
                extra_groups=None if launch.uid is None else [],
            )

    def _log_tail(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "".join(f"\n  {line}" for line in text.splitlines()[-LOG_LINES:])
