"""The process that an engine lives in: `python -m worker.engine.child NAME DESCRIPTOR`.

The only process that touches pages and device. It holds no secret, knows no database, store or
broker, and is expected to die: of a null pointer, of memory, of a page. It ends when its host does.
"""

from __future__ import annotations

import ctypes
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from worker.engine import golden, registry
from worker.engine.interface import Engine
from worker.engine.protocol import (
    Cancel,
    Cancelled,
    FromChild,
    FromHost,
    Read,
    Ready,
    Tell,
    Tick,
    Working,
    encode,
    from_host,
)

TICK_SECONDS = 0.2
IDLE_CHECK_SECONDS = 15 * 60.0  # an idle engine reads its golden page this often
CHUNK_BYTES = 256 * 1024  # 1 MiB costs twice the system time (measured)

_PR_SET_PDEATHSIG = 1


class HostGone(Exception):
    """The other end of the socket is closed."""


class Connection:
    """The child's end of the socket. Raises HostGone where the other end is closed."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._decoder = from_host()
        self._outbox = bytearray()
        self._poll = select.poll()  # select would fail on a descriptor above 1023
        self._poll.register(end, select.POLLIN)

    def receive(self, patience_seconds: float) -> list[FromHost]:
        """The messages that wait; where none does, those that come first within the patience.

        A message that has begun is waited for: the host sends without pause.
        """
        messages: list[FromHost] = []
        while self._decoder.is_midway or self._is_readable(0 if messages else patience_seconds):
            chunk = self._socket.recv(CHUNK_BYTES)
            if not chunk:
                raise HostGone
            messages += self._decoder.feed(chunk)
        return messages

    def _is_readable(self, patience_seconds: float) -> bool:
        return bool(self._poll.poll(patience_seconds * 1000))

    def put(self, message: FromChild) -> None:
        """Send `message` with the next `flush`."""
        for part in encode(message):
            self._outbox += part

    def flush(self) -> None:
        """Send what was put."""
        try:
            self._socket.sendall(self._outbox)
        except BrokenPipeError as error:
            raise HostGone from error
        self._outbox.clear()


class Steps:
    """Drives an engine, and tells the host what is touched and what moved on."""

    def __init__(self, engine: Engine, connection: Connection) -> None:
        self._engine = engine
        self._connection = connection
        self._steps = 0
        self._told: Collection[int] = ()  # the suspects that the host knows of
        self._touched: set[int] = set()
        self._ticked = time.monotonic()

    def step(self) -> None:
        """Do one step and send what came of it."""
        for event in self._engine.step():
            if isinstance(event, Working):
                self._blame(event)
            else:
                self._connection.put(event)
        self._steps += 1
        if time.monotonic() - self._ticked >= TICK_SECONDS:
            self._tick()
        self._connection.flush()

    def _blame(self, working: Working) -> None:
        self._touched.update(working.ids)
        if working.ids != self._told:
            self._told = working.ids
            self._connection.put(working)
            self._connection.flush()  # before the touch that may kill

    def _tick(self) -> None:
        self._connection.put(Tick(self._steps, tuple(self._touched)))
        self._touched.clear()
        self._ticked = time.monotonic()


def serve(
    engine: Engine, connection: Connection, *, idle_check_seconds: float = IDLE_CHECK_SECONDS
) -> None:
    """Read pages until the host goes. Raises HostGone then, and whatever the engine dies of."""
    steps = Steps(engine, connection)
    while True:
        messages = connection.receive(0 if engine.busy else idle_check_seconds)
        for message in messages:
            _obey(engine, connection, message)
        if engine.busy:
            steps.step()
        elif not messages:
            golden.check(engine)


def _obey(engine: Engine, connection: Connection, message: FromHost) -> None:
    match message:
        case Read():
            engine.submit(message)
        case Tell(id=page_id):
            engine.tell(page_id)
        case Cancel(id=page_id):
            engine.cancel(page_id)
            connection.put(Cancelled(page_id))
            connection.flush()


def main(name: str, descriptor: int) -> None:
    """Become the engine `name`, which talks through the socket `descriptor`."""
    _die_with_the_host()
    _die_first_and_fast()
    connection = Connection(socket.socket(fileno=descriptor))
    engine = registry.build(name)
    golden.check(engine)
    with suppress(HostGone):
        connection.put(Ready(engine.name, engine.model, engine.slots, engine.device))
        connection.flush()
        serve(engine, connection)


def _die_with_the_host() -> None:
    for ending in (signal.SIGINT, signal.SIGTERM):  # sent to the group: the worker still drains
        signal.signal(ending, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _die_first_and_fast() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump keeps the pages waiting for minutes
    with suppress(OSError):  # not Linux, or not ours to say
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
