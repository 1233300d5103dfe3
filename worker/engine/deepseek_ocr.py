"""`deepseek-ocr`: DeepSeek-OCR, on the weights in the folder OCTAVO_MODEL_DIR."""

from __future__ import annotations

from worker.engine.deepseek import machine
from worker.engine.deepseek.engine import DeepSeekEngine


def build() -> DeepSeekEngine:
    """The engine, its weights loaded."""
    return machine.build(1)
