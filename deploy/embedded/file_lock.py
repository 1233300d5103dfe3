"""Locks that end with the process that holds them, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def try_lock(path: Path) -> int | None:
    """Return an open file that alone holds `path`, or None where another one does.

    The lock belongs to the open file: a child process that inherits it holds the lock as well,
    and it is free when the last of them has closed it or died.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold `path`, waiting for as long as another process does."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
