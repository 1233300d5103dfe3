"""The golden page: one sentence that every engine must read right before it gets real pages.

A card that computes nonsense says so here, not in somebody's document.
"""

from __future__ import annotations

import functools
import io
import json

from PIL import Image, ImageDraw, ImageFont

from shared.options import Task
from worker.engine.interface import Engine
from worker.engine.protocol import Done, Failed, PageOptions, Read

SENTENCE = "One printed sheet, folded into eight leaves"
MAX_TOKENS = 64  # the sentence has a fifth of it; an engine that babbles is told apart sooner
GOLDEN_ID = 0  # the host's ids begin at 1


class GoldenPageMisread(Exception):
    """The engine does not read what the golden page says."""


@functools.cache
def image() -> bytes:
    """The golden page as PNG, 800 x 160 pixels. The font is Pillow's own."""
    page = Image.new("RGB", (800, 160), "white")
    font = ImageFont.load_default(32)
    ImageDraw.Draw(page).text((60, 60), SENTENCE, fill="black", font=font)
    encoded = io.BytesIO()
    page.save(encoded, "PNG")
    return encoded.getvalue()


def check(engine: Engine) -> None:
    """Have an idle engine read the golden page. Raises GoldenPageMisread."""
    said = read(engine)
    if engine.golden_text not in said:
        raise GoldenPageMisread(f"{engine.name} reads the golden page as {said[:200]!r}")


def read(engine: Engine) -> str:
    """What an idle engine reads on the golden page. Raises GoldenPageMisread where it cannot."""
    options = PageOptions(task=Task.TEXT, max_output_tokens=MAX_TOKENS)
    engine.submit(Read(GOLDEN_ID, "golden", options, image=image()))
    while engine.busy:
        for event in engine.step():
            match event:
                case Done():
                    return str(json.loads(event.recognition)["text"])
                case Failed():
                    raise GoldenPageMisread(f"{engine.name} fails on it: {event.detail}")
    raise GoldenPageMisread(f"{engine.name} gave no answer")
