"""The platform with a DeepSeek-OCR engine: random weights, but everything else as it is."""

from __future__ import annotations

import io
from pathlib import Path

from client.sdk import Octavo
from deploy.local import Platform
from tests import documents
from tests.acceptance.conftest import SHORT_TIMERS
from tests.conftest import Tiny


def test_a_document_is_read_by_deepseek_ocr(tiny: Tiny, tmp_path: Path) -> None:
    settings = SHORT_TIMERS | {"OCTAVO_MODEL_DIR": str(tiny(1))}

    with (
        Platform(tmp_path, engine="deepseek-ocr", settings=settings) as platform,
        Octavo(platform.url, platform.api_key) as octavo,
    ):
        submitted = octavo.submit(io.BytesIO(documents.pdf(pages=3)), name="a.pdf", mode="gundam")
        job = octavo.wait(submitted.id, timeout=240)
        pages = list(octavo.pages(job.id))
        document = octavo.document(job.id)

    assert job.status == "succeeded"
    assert [page.status for page in pages] == ["succeeded"] * 3
    assert [page.engine for page in document.pages] == ["deepseek-ocr"] * 3
    assert [page.mode for page in document.pages] == ["gundam"] * 3
    assert [page.usage.vision_tokens for page in document.pages] == [903] * 3
    assert all(page.text and page.needs_review for page in document.pages)
    assert {page.finish_reason for page in document.pages} <= {"length", "repetition"}
