"""The most memory that each process of a platform had while it was watched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from deploy.local import Platform

LOOK_SECONDS = 0.5
MB = 1024**2


class PeakMemory:
    """Peaks of resident memory by process, children under names of their own."""

    def __init__(self) -> None:
        self._peaks: dict[str, int] = {}

    @property
    def megabytes(self) -> dict[str, float]:
        """The peaks, largest first."""
        ordered = sorted(self._peaks.items(), key=lambda item: -item[1])
        return {name: round(size / MB, 1) for name, size in ordered}

    @contextmanager
    def watching(self, platform: Platform) -> Iterator[None]:
        """Look at the platform's processes while the block runs."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(platform, ended))
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()

    def _watch(self, platform: Platform, ended: threading.Event) -> None:
        while not ended.wait(LOOK_SECONDS):
            for name, pid in platform.pids().items():
                with suppress(psutil.NoSuchProcess):
                    self._look(name, psutil.Process(pid))

    def _look(self, name: str, process: psutil.Process) -> None:
        self._note(name, process.memory_info().rss)
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                self._note(f"{name}: {_what(child)}", child.memory_info().rss)

    def _note(self, name: str, size: int) -> None:
        self._peaks[name] = max(size, self._peaks.get(name, 0))


def _what(child: psutil.Process) -> str:
    """What kind of child this is."""
    command = " ".join(child.cmdline())
    if "worker.engine.child" in command:
        return "engine"
    return "renderer" if "zygote" in command else "child"
