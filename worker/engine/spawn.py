"""The host's handle of the child process: spawn it, talk with it, see it end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from worker.engine.protocol import FromChild, FromHost, encode, from_child

CHILD = ("-m", "worker.engine.child")
SOCKET_BUFFER_BYTES = 4 * 1024**2  # a whole page; the kernel may give less
CHUNK_BYTES = 1024**2
EXIT_SECONDS = 1
BURY_SECONDS = 10  # a process that hangs in a device driver outlives even SIGKILL
OUTPUT_LINES = 20
OUTPUT_LINE_BYTES = 500

_ROOT = Path(__file__).parents[2]

# What a library may need to know of its machine. Whatever else is in the worker's environment,
# passwords among it, is none of the business of a process that reads hostile pixels.
_NAMES = {"PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "XDG_CACHE_HOME"}
_PREFIXES = (
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "TORCH",
    "PYTORCH_",
    "TRITON_",
    "HF_",
    "OCTAVO_FAKE_",
    "OCTAVO_MODEL_",
)
_OWN_PREFIXES = {"remote": ("OCTAVO_REMOTE_",)}  # with the key of a server, for that engine alone


def environment(inherited: Mapping[str, str], engine: str) -> dict[str, str]:
    """What the child that becomes `engine` may know of `inherited`, its host's environment."""
    prefixes = _PREFIXES + _OWN_PREFIXES.get(engine, ())
    kept = {k: v for k, v in inherited.items() if k in _NAMES or k.startswith(prefixes)}
    return kept | {
        "PYTHONPATH": str(_ROOT),
        "PYTHONUNBUFFERED": "1",
        "OMP_NUM_THREADS": "1",  # two processes of one thread beat one of two (measured, CPU)
    }


class Child:
    """An engine's process. Used by one thread, which must outlive it.

    On Linux the child is killed when the thread ends that spawned it, not only the process.
    """

    def __init__(self, engine: str) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
        self.socket.settimeout(0)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", *CHILD, engine, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=environment(os.environ, engine),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        assert self._process.stdout is not None
        self.output = self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._written = bytearray()
        self._decoder = from_child()
        self._outbox: deque[memoryview] = deque()

    @property
    def pid(self) -> int:
        """Of the process; meaningless after `bury`."""
        return self._process.pid

    @property
    def is_behind(self) -> bool:
        """Whether something put waits to be sent."""
        return bool(self._outbox)

    def put(self, message: FromHost) -> None:
        """Send `message` with the next `flush`es."""
        self._outbox += [memoryview(part) for part in encode(message) if part]

    def flush(self) -> None:
        """Send as much as the socket takes.

        Where the child is gone, nothing: `receive` says so, behind what the child said last.
        """
        while self._outbox:
            part = self._outbox[0]
            try:
                sent = self.socket.send(part)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._outbox.clear()
                return
            if sent == len(part):
                self._outbox.popleft()
            else:
                self._outbox[0] = part[sent:]

    def receive(self) -> Iterator[FromChild]:
        """The messages that have come, where the socket is readable.

        Raises EOFError or OSError where the child is gone, ProtocolError where it talks nonsense.
        """
        try:
            chunk = self.socket.recv(CHUNK_BYTES)
        except BlockingIOError:
            return iter(())
        if not chunk:
            raise EOFError("the child closed its socket")
        return self._decoder.feed(chunk)

    def listen(self) -> bool:
        """Take what the child wrote to its output; False once that is closed."""
        try:
            chunk = os.read(self.output.fileno(), CHUNK_BYTES)
        except BlockingIOError:
            return True
        self._written += chunk
        del self._written[: -OUTPUT_LINES * OUTPUT_LINE_BYTES]
        return bool(chunk)

    def last_words(self) -> str:
        """The last lines that the child wrote."""
        lines = self._written.decode(errors="replace").splitlines()[-OUTPUT_LINES:]
        return "\n".join(line[-OUTPUT_LINE_BYTES:] for line in lines)

    def bury(self, *, ended_by_itself: bool) -> str:
        """Kill what is left, give everything back, and say how the process ended."""
        if ended_by_itself:  # and is on its way out: killed now, it would not say of what
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(EXIT_SECONDS)
        self._process.kill()  # nothing, where it has ended
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(BURY_SECONDS)
        self.listen()
        self.socket.close()
        self.output.close()
        return _ending(self._process.returncode)


def _ending(status: int | None) -> str:
    if status is None:
        return "killed, but kept alive by the kernel"
    return f"exit status {status}" if status >= 0 else signal.Signals(-status).name
