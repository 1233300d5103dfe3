"""How long somebody waits for one page, from the first byte sent to the text received."""

from __future__ import annotations

import io
import statistics
import time

from benchmarks.documents import page_images
from client.sdk import Octavo


def measure(octavo: Octavo, submissions: int) -> tuple[float, float]:
    """Median and 99th percentile, in seconds, of one-page images submitted one after another."""
    [image] = page_images(1)
    seconds = sorted(_submit(octavo, image) for _ in range(submissions))
    return statistics.median(seconds), seconds[int(0.99 * (len(seconds) - 1))]


def _submit(octavo: Octavo, image: bytes) -> float:
    began = time.perf_counter()
    job = octavo.wait(octavo.submit(io.BytesIO(image), name="page.jpg").id)
    assert job.status == "succeeded", job
    octavo.result(job.id)
    return time.perf_counter() - began
