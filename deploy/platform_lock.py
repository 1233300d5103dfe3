"""One platform a directory: who has it, and who is still leaving it."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from deploy.embedded.file_lock import try_lock
from deploy.supervisor import STOP_SECONDS, Failure

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

POLL_SECONDS = 0.1


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[int]:
    """Hold the directory, and give an open file that every process of the platform is to inherit.

    Raises Failure where a platform runs there. The processes of one that was killed may still be
    finishing their work: as long as one of them has the file, they are waited for.
    """
    supervisor = try_lock(directory / "platform.lock")
    if supervisor is None:
        raise Failure(f"Octavo is already running in {directory}")
    try:
        processes = _await_lock(directory / "processes.lock")
        try:
            yield processes
        finally:
            os.close(processes)
    finally:
        os.close(supervisor)


def _await_lock(path: Path) -> int:
    deadline = time.monotonic() + STOP_SECONDS + 5
    while (lock := try_lock(path)) is None:
        if time.monotonic() > deadline:
            raise Failure(f"processes of an earlier start still run in {path.parent}")
        time.sleep(POLL_SECONDS)
    return lock
