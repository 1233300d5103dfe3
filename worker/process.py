"""What this worker process has one of: its heartbeat, and its engine or its sandbox.

Set once, before the first task, by `worker.run`; tasks read it.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.engine.host import EngineHost
from worker.heartbeat import Heartbeat


@dataclass
class _Parts:
    heartbeat: Heartbeat | None = None
    engine: EngineHost | None = None


_parts = _Parts()


def equip(*, heartbeat: Heartbeat, engine: EngineHost | None) -> None:
    """Set the parts of this process."""
    _parts.heartbeat, _parts.engine = heartbeat, engine


def heartbeat() -> Heartbeat:
    """The heartbeat of this process."""
    assert _parts.heartbeat is not None, "the worker was not equipped"
    return _parts.heartbeat


def engine() -> EngineHost:
    """The engine of this process, which is a recognition worker."""
    assert _parts.engine is not None, "the worker has no engine"
    return _parts.engine
