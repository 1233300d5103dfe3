"""The most memory that each process of a platform had while it was watched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

from deploy.local import Platform

LOOK_SECONDS = 2.0
"""A look reads all processes of the machine, which itself takes a little of what is measured."""

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
            parents = {each.pid: each.info["ppid"] for each in psutil.process_iter(["ppid"])}
            names = {pid: name for name, pid in platform.pids().items()}
            for pid in parents:
                with suppress(psutil.NoSuchProcess):
                    self._look(pid, parents, names)

    def _look(self, pid: int, parents: dict[int, int], names: dict[int, str]) -> None:
        """Note one process, if it is the platform's or a child of one that is."""
        if pid in names:
            self._note(names[pid], psutil.Process(pid).memory_info().rss)
        elif owner := _owner(pid, parents, names):
            child = psutil.Process(pid)
            self._note(f"{owner}: {_what(child)}", child.memory_info().rss)

    def _note(self, name: str, size: int) -> None:
        self._peaks[name] = max(size, self._peaks.get(name, 0))


def _owner(pid: int, parents: dict[int, int], names: dict[int, str]) -> str | None:
    """The name of the platform's process that a process descends from."""
    while pid in parents and pid not in names:
        pid = parents[pid]
    return names.get(pid)


def _what(child: psutil.Process) -> str:
    """What kind of child this is."""
    command = " ".join(child.cmdline())
    if "worker.engine.child" in command:
        return "engine"
    return "renderer" if "zygote" in command else "child"
