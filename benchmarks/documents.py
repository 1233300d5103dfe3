"""The documents that are measured on: the pages of the vector sample, as often as wanted."""

from __future__ import annotations

import io
import tempfile
from itertools import cycle, islice
from pathlib import Path

import pikepdf

from shared.config import Settings
from shared.media import MediaType
from worker.pipeline.render import Limits, open_document

SAMPLE = Path(__file__).parents[1] / "deploy/samples/octavo.pdf"


def repeated(pages: int) -> bytes:
    """A PDF of so many pages, the sample's over and over."""
    written = io.BytesIO()
    with pikepdf.open(SAMPLE) as sample, pikepdf.new() as document:
        for page in islice(cycle(list(sample.pages)), pages):
            document.pages.append(page)
        document.save(written)
    return written.getvalue()


def page_images(pages: int) -> list[bytes]:
    """The images of `repeated(pages)`, as the platform renders them for its engines."""
    with tempfile.TemporaryFile() as file:
        file.write(SAMPLE.read_bytes())
        file.flush()
        limits = Limits.of(Settings.model_construct())  # the defaults; no platform is needed
        with open_document(file.fileno(), MediaType.PDF, limits=limits, password=None) as sample:
            images = [sample.render(index).jpeg for index in range(sample.pages_total)]
    return list(islice(cycle(images), pages))
