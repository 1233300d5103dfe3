"""A checkpoint of the published size with random weights, in the official layout.

Speed does not depend on what the weights say, but for which experts are chosen. So what a layer
adds is little: where it is much, twelve layers make all tokens alike, and few experts are used.

    python -m benchmarks.deepseek.checkpoint FOLDER --model 1 --words 200

Then the head is such that every page is read as the same 200 words, and ends: what reads with it
sees pages come to an end in order, as with the published weights.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from worker.engine.deepseek import (
    checkpoint,
    config,
    layout,
    machine,
    prompts,
    tiny,
    tokenizer_file,
)
from worker.engine.deepseek.config import Version
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.tokens import END, Tokenizer

ADDED = 0.1  # with it 63 of 64 experts are used by 64 rows; with 1 it is 43
ORDINARY = range(1_000, 120_000)  # ids that are plain text
WORD = re.compile(rb" [a-z]{3,}")
GOLDEN_WORDS = 4

_VISION: dict[Version, dict[str, Any]] = {
    1: {"clip-l-14-224": {"width": 1024, "layers": 24, "heads": 16}},
    2: {"qwen2-0-5b": {"dim": 896}},
}
_ARCHITECTURES: dict[Version, str] = {1: "DeepseekOCRForCausalLM", 2: "DeepseekOCR2ForCausalLM"}
_PROJECTOR: dict[Version, int] = {1: 2048, 2: 896}


def description(version: Version) -> dict[str, Any]:
    """The `config.json` of a model of the published size."""
    sam = {"width": 768, "layers": 12, "heads": 12, "downsample_channels": [512, 1024]}
    return {
        "architectures": [_ARCHITECTURES[version]],
        "model_type": "deepseek_vl_v2",
        "torch_dtype": "bfloat16",
        "language_config": {"hidden_size": 1280, "num_hidden_layers": 12},
        "projector_config": {"input_dim": _PROJECTOR[version], "n_embed": 1280},
        "vision_config": {"width": {"sam_vit_b": sam, **_VISION[version]}},
    }


def write(folder: Path, version: Version, device: torch.device, *, words: int = 0) -> None:
    """Make it in `folder`; 6.7 GB. It babbles without end, or says so many words of each page."""
    folder.mkdir(parents=True, exist_ok=True)
    described = description(version)
    (folder / checkpoint.TOKENIZER_FILE).write_bytes(tokenizer_file.build())
    (folder / config.CONFIG_FILE).write_text(json.dumps(described))
    dice = torch.Generator(device).manual_seed(version)
    weights = {
        name: _drawn(name, shape, dice).bfloat16().cpu()
        for name, shape in layout.shapes(config.parse(described)).items()
    }
    if words:
        _teach(weights, Tokenizer(folder / checkpoint.TOKENIZER_FILE), words, folder)
    save_file(weights, folder / tiny.WEIGHTS_FILE, {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, tiny.WEIGHTS_FILE)}
    (folder / checkpoint.INDEX_FILE).write_text(json.dumps(index))


def _drawn(name: str, shape: tuple[int, ...], dice: torch.Generator) -> torch.Tensor:
    adds = name.startswith("model.layers.") and name.endswith(("o_proj.weight", "down_proj.weight"))
    return tiny.drawn(name, shape, dice) * (ADDED if adds else 1)


def _teach(
    weights: dict[str, torch.Tensor], tokenizer: Tokenizer, words: int, folder: Path
) -> None:
    """Have it say `words` after any prompt of ours, and what it says of the golden page noted.

    What the layers think of a token is mostly the token itself, since they add little: so a row of
    the head that is the embedding of one word is the answer to that word.
    """
    plain = (token for token in ORDINARY if WORD.fullmatch(tokenizer.bytes_of(token)))
    said = [token for token, _ in zip(plain, range(words), strict=False)]
    [asked] = {prompts.ids(tokenizer, use, images=0)[-1] for use in (Use.DOCUMENT, Use.TEXT)}
    head, embedding = weights["lm_head.weight"], weights["model.embed_tokens.weight"]
    head[[*said, END]] = embedding[[asked, *said]] * head.shape[1] ** -0.5
    notes = {"golden_text": _text(tokenizer, said[:GOLDEN_WORDS])}
    (folder / checkpoint.NOTES_FILE).write_text(json.dumps(notes))


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids).text.strip()


def main() -> None:
    """Make one where it was asked for."""
    parser = argparse.ArgumentParser(description="A checkpoint of the published size, random.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=int, choices=[1, 2], default=1)
    parser.add_argument("--words", type=int, default=0, help="of every page; 0: it babbles")
    parser.add_argument("--tiny", action="store_true", help="a tiny one, for a trial on a CPU")
    arguments = parser.parse_args()
    version: Version = 1 if arguments.model == 1 else 2
    if arguments.tiny:
        tiny.write(arguments.folder, version)
    else:
        write(arguments.folder, version, machine.device(), words=arguments.words)


if __name__ == "__main__":
    main()
