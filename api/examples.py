"""Examples of what is read, for OpenAPI. A test validates each against its schema."""

from __future__ import annotations

import json
from typing import Any

from api.schemas import JOB_ID

_USAGE = {
    "vision_tokens": None,
    "output_tokens": None,
    "compression_ratio": None,
    "engine_seconds": 0.94,
}

PAGE: dict[str, Any] = {
    "page": 1,
    "status": "succeeded",
    "width": 1240,
    "height": 1754,
    "markdown": "From a sheet to an octavo\n\n![](pages/1/figures/1)",
    "text": "From a sheet to an octavo",
    "blocks": [
        {
            "kind": "line",
            "text": "From a sheet to an octavo",
            "box": {"x0": 118, "y0": 131, "x1": 604, "y1": 170},
            "confidence": 0.991,
            "figure": None,
            "order": 0,
            "box_fraction": [0.09516, 0.07469, 0.4871, 0.09692],
        },
        {
            "kind": "image",
            "text": "",
            "box": {"x0": 118, "y0": 210, "x1": 604, "y1": 610},
            "confidence": 0.974,
            "figure": 1,
            "order": 1,
            "box_fraction": [0.09516, 0.11973, 0.4871, 0.34778],
        },
    ],
    "confidence": 0.991,
    "confidence_min": 0.991,
    "finish_reason": "stop",
    "rotation": 0,
    "needs_review": False,
    "engine": "deepseek-ocr",
    "model": "DeepSeek-OCR",
    "mode": "base",
    "tries": [],
    "usage": _USAGE,
    "error": None,
}

DOCUMENT: dict[str, Any] = {
    "schema": "octavo.document/1",
    "job_id": JOB_ID,
    "status": "succeeded",
    "source": {
        "name": "octavo.pdf",
        "media_type": "application/pdf",
        "bytes": 184320,
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    },
    "content_is_untrusted": True,
    "usage": _USAGE,
    "pages": [PAGE],
}

PAGE_LIST: dict[str, Any] = {
    "job_id": JOB_ID,
    "status": "running",
    "total": 12,
    "data": [
        {
            "page": 1,
            "status": "succeeded",
            "width": 1240,
            "height": 1754,
            "attempts": 1,
            "confidence": 0.991,
            "needs_review": False,
            "error": None,
        }
    ],
    "next_cursor": None,
}

EVENTS = f"""retry: 1000

event: text
data: {{"text":"From a sheet","attempt":1}}
id: 1-12

event: text
data: {{"text":" to an octavo","attempt":1}}
id: 1-25

event: page
data: {json.dumps(PAGE)}

"""

MARKDOWN = "<!-- page 1 -->\n\nFrom a sheet to an octavo\n\n![](pages/1/figures/1)\n"
TEXT = "From a sheet to an octavo\n"


def as_json(example: dict[str, Any], description: str) -> dict[int | str, dict[str, Any]]:
    """A documented 200 with an example of its body."""
    return {
        200: {"description": description, "content": {"application/json": {"example": example}}}
    }
