"""The other side: transformers' own classes on the same checkpoint, in fp32 on the CPU.

They are independent of our network and were held against the makers' code. Version 1 has no class
of its own there: Unlimited-OCR's is the same network plus a sliding window, which the config turns
off.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from torch import Tensor

from worker.engine.deepseek import config
from worker.engine.deepseek.config import ModelConfig, Version
from worker.engine.deepseek.repeats import Rule
from worker.engine.deepseek.tokens import CELL, END, END_CELL, IMAGE, PAD
from worker.engine.deepseek.views import Views

KINDS: dict[Version, Any] = {
    1: transformers.UnlimitedOcrForConditionalGeneration,
    2: transformers.DeepseekOcr2ForConditionalGeneration,
}


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    """The reference with the weights of the checkpoint, all of which it must take, and no more."""
    found = config.read(folder)
    model, report = KINDS[found.version].from_pretrained(
        folder,
        config=_config(found),
        dtype=dtype,
        attn_implementation="sdpa",
        output_loading_info=True,
    )
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    assert not report["unexpected_keys"], report
    return model.eval()


def _config(found: ModelConfig) -> Any:
    language = found.language
    text = {
        name: getattr(language, name)
        for name in (
            *("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size"),
            *("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_act"),
            *("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "rms_norm_eps"),
            *("max_position_embeddings", "attention_bias", "tie_word_embeddings", "topk_method"),
        )
    } | {
        "n_group": 1,
        "topk_group": 1,
        "routed_scaling_factor": 1.0,
        "mlp_layer_types": [
            "dense" if language.is_dense(number) else "sparse"
            for number in range(language.num_hidden_layers)
        ],
        "rope_parameters": {"rope_type": "default", "rope_theta": language.rope_theta},
        "bos_token_id": 0,
        "eos_token_id": END,
        "pad_token_id": PAD,
    }
    vision = {"sam_config": _sam(found), "encoder_config": _encoder(found)}
    if found.version == 1:
        text |= {"layer_types": ["full_attention"] * language.num_hidden_layers}
        text |= {"sliding_window": 8192}
        return transformers.UnlimitedOcrConfig(
            text_config=text, vision_config=vision, image_token_id=IMAGE
        )
    return transformers.DeepseekOcr2Config(
        text_config=text, vision_config=vision, image_token_id=IMAGE
    )


def _sam(found: ModelConfig) -> dict[str, Any]:
    sam = found.sam
    return {
        "hidden_size": sam.width,
        "num_hidden_layers": sam.layers,
        "num_attention_heads": sam.heads,
        "mlp_dim": 4 * sam.width,
        "image_size": sam.image_size,
        "patch_size": sam.patch_size,
        "output_channels": sam.neck,
        "window_size": sam.window_size,
        "global_attn_indexes": list(sam.global_attn_indexes),
        "downsample_channels": [sam.downsample_channels[0], found.sam_channels],
    }


def _encoder(found: ModelConfig) -> dict[str, Any]:
    if found.clip is not None:
        return {
            "hidden_size": found.clip.width,
            "intermediate_size": 4 * found.clip.width,
            "num_hidden_layers": found.clip.layers,
            "num_attention_heads": found.clip.heads,
            "image_size": found.clip.image_size,
            "patch_size": found.clip.patch_size,
            "hidden_act": "quick_gelu",
            "layer_norm_eps": 1e-5,
        }
    assert found.query is not None
    return {
        "hidden_size": found.query.dim,
        "intermediate_size": found.query.mlp,
        "num_hidden_layers": found.query.layers,
        "num_attention_heads": found.query.heads,
        "num_key_value_heads": found.query.kv_heads,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": found.query.rope_theta},
    }


def inputs(views: Views, version: Version) -> dict[str, Any]:
    """The pictures of a page as the reference takes them."""
    return inputs_of_all([views], version)


def inputs_of_all(pages: Sequence[Views], version: Version) -> dict[str, Any]:
    """The pictures of several pages, whose views of the whole have one size."""
    tiles = [tile for page in pages for tile in page.tiles]
    given: dict[str, Any] = {
        "pixel_values": _pixels([page.whole for page in pages]),
        "num_local_patches": [len(page.tiles) for page in pages],
    }
    if tiles:
        given["pixel_values_local"] = _pixels(tiles)
    if version == 1:
        given["patches_grid"] = [list(page.grid) for page in pages]
    return given


def _pixels(pictures: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def logits(model: Any, prompt: list[int], views: Views, version: Version) -> Tensor:
    """Of every token of the prompt, (T, vocabulary)."""
    ids = torch.tensor([prompt])
    found: Tensor = model(
        input_ids=ids, attention_mask=torch.ones_like(ids), **inputs(views, version)
    ).logits[0]
    return found.float()


@torch.no_grad()
def generate(
    model: Any, prompt: list[int], views: Views, version: Version, *, most: int, rule: Rule
) -> list[int]:
    """What its own greedy generation puts out, the end token included."""
    ids = torch.tensor([prompt])
    found = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=END,
        pad_token_id=PAD,
        logits_processor=transformers.LogitsProcessorList([Repeats(rule, len(prompt))]),
        **inputs(views, version),
    )
    return list(found[0, len(prompt) :].tolist())


class Repeats(transformers.LogitsProcessor):  # type: ignore[misc]  # of an untyped library
    """The rule against repeats as its words say it, a row and a place at a time."""

    def __init__(self, rule: Rule, prompt_tokens: int) -> None:
        self._rule = rule
        self._prompt_tokens = prompt_tokens

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        for row, ids in enumerate(input_ids.tolist()):
            for token in banned(ids[self._prompt_tokens :], self._rule):
                scores[row, token] = float("-inf")
        return scores


def banned(output: list[int], rule: Rule) -> set[int]:
    """What the rule forbids behind this output."""
    n, length = rule.n, len(output)
    if n == 0 or length < n:
        return set()
    prefix = output[length - (n - 1) :]
    found = {
        output[start + n - 1]
        for start in range(max(0, length - rule.window), length - n + 1)
        if output[start : start + n - 1] == prefix
    }
    return found - {CELL, END_CELL}
