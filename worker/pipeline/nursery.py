"""What children that open hostile documents are forked from, as the worker sees it.

A zygote has imported the decoders and is asked for children by one socket; what it does there is in
`zygote`. A process has one in its nursery, from the first document on, and a new one where it died.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

import structlog
from pydantic import TypeAdapter

from shared.errors import DependencyUnavailable
from worker.pipeline.confinement import Layer
from worker.pipeline.limits import MESSAGE_BYTES

log = structlog.get_logger()

_ZYGOTE_SECONDS = 30
"""Longer than a start takes on a busy machine (0.4 s on an idle one), or a fork (some ms)."""

_START = """
import sys
sys.path.insert(0, sys.argv[1])
from worker.pipeline.zygote import main
main(int(sys.argv[2]))
"""
_ROOT = Path(__file__).parents[2]
_LAYERS: TypeAdapter[dict[str, Layer]] = TypeAdapter(dict[str, Layer])


class Zygote:
    """A process that forks children. It ends with us, and its children end with it."""

    layers: dict[str, Layer]
    """What its children are confined by, and what this host does not allow."""

    def __init__(self, program: str = _START) -> None:
        """Start it, and wait until it is ready; raises OSError where it does not get so far."""
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(_ZYGOTE_SECONDS)
        started: Future[int] = Future()
        keeper = threading.Thread(target=_keep_zygote, args=(program, theirs, started), daemon=True)
        keeper.start()
        try:
            self._process = started.result(_ZYGOTE_SECONDS)
        except OSError:
            self._control.close()
            raise
        try:
            self.layers = self._hear_layers()
        except OSError:
            self.close()
            raise

    def _hear_layers(self) -> dict[str, Layer]:
        report = self._control.recv(MESSAGE_BYTES)
        if not report:
            raise ConnectionResetError("a zygote ended before it was ready")
        return _LAYERS.validate_json(report)

    def fork(self, order: bytes, descriptors: list[int]) -> int:
        """The pidfd of a new child; raises OSError where the zygote is gone."""
        with self._lock:
            socket.send_fds(self._control, [order], descriptors)
            answer, pidfds, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 1)
        if not answer:
            raise ConnectionResetError
        [pidfd] = pidfds
        return pidfd

    def is_alive(self) -> bool:
        """Whether it can still fork. A zygote hangs up before its children are killed."""
        with self._lock:
            if self._control.fileno() < 0:
                return False
            poll = select.poll()
            poll.register(self._control, 0)
            return not poll.poll(0)

    def close(self) -> None:
        """End it, and its children."""
        with self._lock, suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)
        self.abandon()

    def abandon(self) -> None:
        """Close what we have of it: it is gone, or another process's."""
        self._control.close()
        os.close(self._process)


def _keep_zygote(program: str, control: socket.socket, started: Future[int]) -> None:
    """Start a zygote on `control`, and stay until it ends, for then it is reaped.

    In a thread of its own, since a zygote is killed when the thread that started it ends.
    """
    command = [sys.executable, "-I", "-c", program, str(_ROOT), str(control.fileno())]
    with control:
        try:
            process = subprocess.Popen(  # noqa: S603 (nothing of it comes from outside)
                command,
                env={},  # no key, no address of a database
                cwd="/",
                pass_fds=[control.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the worker, which still needs it
            )
        except OSError as error:
            started.set_exception(error)
            return
    with process:
        started.set_result(os.pidfd_open(process.pid))


class Nursery:
    """The zygote of this process: started when it is first needed, and again when it is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._zygote: Zygote | None = None

    def start(self) -> None:
        """Have a zygote, and say in the log what this host does not allow.

        Raises DependencyUnavailable where none starts: no document can be opened here.
        """
        try:
            with self._lock:
                self._living()
        except OSError as error:
            raise DependencyUnavailable("documents cannot be opened now") from error

    def fork(self, order: bytes, descriptors: list[int]) -> tuple[Zygote, int]:
        """A zygote and the pidfd of its new child; raises DependencyUnavailable where none starts."""
        with self._lock:
            try:
                return self._fork(order, descriptors)
            except OSError:
                pass  # killed since it was last asked
            try:
                return self._fork(order, descriptors)
            except OSError as error:
                raise DependencyUnavailable("documents cannot be opened now") from error

    def _fork(self, order: bytes, descriptors: list[int]) -> tuple[Zygote, int]:
        zygote = self._living()
        try:
            return zygote, zygote.fork(order, descriptors)
        except OSError:
            self._zygote = None
            zygote.close()
            raise

    def _living(self) -> Zygote:
        self._zygote = self._zygote or _announced(Zygote())
        return self._zygote

    def forget(self) -> None:
        """In a fork of this process: the zygote is the parent's."""
        self._lock = threading.Lock()
        if self._zygote is not None:
            self._zygote.abandon()
            self._zygote = None


def _announced(zygote: Zygote) -> Zygote:
    """Say aloud what its children are not protected by."""
    missing = {name: layer.detail for name, layer in zygote.layers.items() if not layer.active}
    if missing:
        log.warning("sandbox_layers_missing", **missing)
    return zygote


nursery = Nursery()
os.register_at_fork(after_in_child=nursery.forget)
