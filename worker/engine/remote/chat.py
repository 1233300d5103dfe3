"""What the server is asked: one message with the page and the official words behind it."""

from __future__ import annotations

import base64
import json
from typing import Any

from PIL import Image

from worker.engine.deepseek import prompts
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.tokens import CELL, END_CELL
from worker.engine.protocol import Read
from worker.engine.remote.settings import RemoteSettings

_VLLM = {
    "skip_special_tokens": False,  # boxes and table cells are such tokens
    # The rule against repeats, as the recipe for DeepSeek-OCR has it.
    "vllm_xargs": {
        "ngram_size": 30,
        "window_size": 90,
        "whitelist_token_ids": [CELL, END_CELL],
    },
}


def body(request: Read, use: Use, opened: Image.Image, settings: RemoteSettings) -> bytes:
    """The body of the request for a page, which goes as it is, as a data URL."""
    wanted = request.options.max_output_tokens or settings.max_output_tokens
    asked: dict[str, Any] = {
        "model": settings.model,
        "messages": [{"role": "user", "content": _content(request, use, opened)}],
        "max_tokens": min(wanted, settings.max_output_tokens),
        "temperature": 0,
        "stream": True,  # a page that goes on is told from a server that hangs
        "stream_options": {"include_usage": True},
    }
    if settings.logprobs:
        asked["logprobs"] = True
    if settings.vllm:
        asked |= _VLLM
    return json.dumps(asked, ensure_ascii=False).encode()


def _content(request: Read, use: Use, opened: Image.Image) -> list[dict[str, Any]]:
    media_type = Image.MIME[opened.format or "JPEG"]
    encoded = base64.b64encode(request.image).decode()
    words = prompts.text(use, words=request.options.prompt or "")
    return [
        {"type": "image_url", "image_url": {"url": f"data:{media_type};base64,{encoded}"}},
        {"type": "text", "text": words},
    ]
