"""The bare engine: as many processes as there are engines, nothing around them."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

LOAD_SECONDS = 60
"""An engine that is not loaded by then has died."""


def pages_per_second(images: Sequence[bytes], processes: int) -> float:
    """How many page images that many engines read in a second, once they are loaded."""
    context = multiprocessing.get_context("spawn")
    waiting: SimpleQueue[bytes | None] = context.SimpleQueue()
    loaded = context.Barrier(processes + 1, timeout=LOAD_SECONDS)
    engines = [
        context.Process(target=_read_all, args=(waiting, loaded), daemon=True)
        for _ in range(processes)
    ]
    for engine in engines:
        engine.start()
    loaded.wait()
    began = time.perf_counter()
    for image in [*images, *[None] * processes]:
        waiting.put(image)
    for engine in engines:
        engine.join()
    return len(images) / (time.perf_counter() - began)


def _read_all(waiting: SimpleQueue[bytes | None], loaded: Barrier) -> None:
    from faster_paddle import OcrEngine  # noqa: PLC0415 - in the child only

    engine = OcrEngine(model_size="tiny", threads=1)
    loaded.wait()
    while (image := waiting.get()) is not None:
        engine.ocr(image)
