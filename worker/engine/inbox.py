"""What the worker's threads leave for the supervisor, and the bell that wakes it."""

from __future__ import annotations

import socket
import threading
from collections import deque
from contextlib import suppress

from worker.engine.reading import Reading


class Inbox:
    """Pages that wait for the engine, in order, pages to be told, and pages nobody wants any more.

    Any thread may bring; only the supervisor takes. A selector may watch it.
    """

    def __init__(self) -> None:
        self.waiting: deque[Reading] = deque()
        self.told: deque[Reading] = deque()
        self.cancelled: deque[Reading] = deque()
        self._bell, self._ear = socket.socketpair()
        self._bell.settimeout(0)
        self._ear.settimeout(0)
        self._lock = threading.Lock()
        self._rung = self._closed = False

    def fileno(self) -> int:
        """Readable when something was brought."""
        return self._ear.fileno()

    def submit(self, reading: Reading) -> bool:
        """Bring a page; False where nobody takes any more."""
        with self._lock:
            if not self._closed:
                self.waiting.append(reading)
                self._ring()
            return not self._closed

    def tell(self, reading: Reading) -> None:
        """Bring a page whose text is to be told while it grows."""
        self._bring(reading, self.told)

    def cancel(self, reading: Reading) -> None:
        """Bring a page that is to be dropped."""
        self._bring(reading, self.cancelled)

    def _bring(self, reading: Reading, to: deque[Reading]) -> None:
        with self._lock:
            if not self._closed:
                to.append(reading)
                self._ring()

    def ring(self) -> None:
        """Wake the supervisor."""
        with self._lock:
            if not self._closed:
                self._ring()

    def _ring(self) -> None:
        if not self._rung:
            self._rung = True
            self._bell.send(b"!")

    def hush(self) -> None:
        """Let the bell ring again; to be called before looking at what was brought."""
        with self._lock, suppress(BlockingIOError):
            self._rung = False
            self._ear.recv(64)

    def close(self) -> list[Reading]:
        """Take nothing any more; the pages that still waited."""
        with self._lock:
            self._closed = True
            self._bell.close()
            self._ear.close()
        return list(self.waiting)
