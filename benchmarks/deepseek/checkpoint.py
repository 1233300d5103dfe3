"""A checkpoint of the published size with random weights, in the official layout.

Speed does not depend on what the weights say, but for which experts are chosen. So what a layer
adds is little: where it is much, twelve layers make all tokens alike, and few experts are used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from worker.engine.deepseek import checkpoint, config, layout, tiny, tokenizer_file
from worker.engine.deepseek.config import Version

ADDED = 0.1  # with it 63 of 64 experts are used by 64 rows; with 1 it is 43

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


def write(folder: Path, version: Version, device: torch.device) -> None:
    """Make it in `folder`; 6.7 GB."""
    folder.mkdir(parents=True, exist_ok=True)
    described = description(version)
    (folder / checkpoint.TOKENIZER_FILE).write_bytes(tokenizer_file.build())
    (folder / config.CONFIG_FILE).write_text(json.dumps(described))
    dice = torch.Generator(device).manual_seed(version)
    weights = {
        name: _drawn(name, shape, dice).bfloat16().cpu()
        for name, shape in layout.shapes(config.parse(described)).items()
    }
    save_file(weights, folder / tiny.WEIGHTS_FILE, {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, tiny.WEIGHTS_FILE)}
    (folder / checkpoint.INDEX_FILE).write_text(json.dumps(index))


def _drawn(name: str, shape: tuple[int, ...], dice: torch.Generator) -> torch.Tensor:
    adds = name.startswith("model.layers.") and name.endswith(("o_proj.weight", "down_proj.weight"))
    return tiny.drawn(name, shape, dice) * (ADDED if adds else 1)
