"""Which engines there are, and where each is built. Only the engine asked for is imported."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from worker.engine.interface import Engine

ENGINES = {
    "deepseek-ocr": "worker.engine.deepseek_ocr",
    "deepseek-ocr-2": "worker.engine.deepseek_ocr_2",
    "fake": "worker.engine.fake",
    "paddle": "worker.engine.paddle",
    "rapid": "worker.engine.rapid",
    "remote": "worker.engine.remote.engine",
}
"""Name -> module; its `build()` makes the engine, ready for its golden page."""


def build(name: str) -> Engine:
    """The engine of that name, in this process. Raises KeyError where there is none."""
    return cast("Engine", import_module(ENGINES[name]).build())
