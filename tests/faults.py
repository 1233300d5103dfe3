"""Engines in their own processes for the tests, and pages that make the fake one fail."""

from __future__ import annotations

import io
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image, ImageDraw, ImageFont

from worker.engine.faults import Fault, mark
from worker.engine.host import EngineHost

LIMITS: dict[str, Any] = {
    "page_seconds": 30,
    "stall_seconds": 30,
    "max_recognition_bytes": 1024**2,
}


@contextmanager
def running(name: str = "fake", **limits: float) -> Iterator[EngineHost]:
    """A host whose engine has started, stopped at the end."""
    host = EngineHost(name, **(LIMITS | limits))
    host.start()
    try:
        yield host
    finally:
        host.stop()


@contextmanager
def fake_settings(state: Path | None = None, **settings: object) -> Iterator[None]:
    """OCTAVO_FAKE_* in the environment: `slots`, `delay_seconds`, `faults` and so on."""
    named = {f"OCTAVO_FAKE_{name.upper()}": str(value) for name, value in settings.items()}
    if state is not None:
        named["OCTAVO_FAKE_STATE"] = str(state)
    with patch.dict(os.environ, named):
        yield


def page_image(
    fault: Fault | None = None, *, text: str = "", size: tuple[int, int] = (620, 877)
) -> bytes:
    """A page as JPEG, with wrapped black text on white, and with the mark of `fault`."""
    return jpeg(page(fault, text=text, size=size))


def page(
    fault: Fault | None = None, *, text: str = "", size: tuple[int, int] = (620, 877)
) -> Image.Image:
    """The same, not encoded."""
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(24)
    for number, line in enumerate(textwrap.wrap(text, size[0] // 14)):
        draw.text((50, 60 + 40 * number), line, fill="black", font=font)
    if fault:
        mark(image, fault)
    return image


def jpeg(image: Image.Image, quality: int = 92) -> bytes:
    """As our renderer encodes a page."""
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()
