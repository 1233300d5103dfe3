"""The official config files: what is taken of them, and what is refused."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import pytest

from worker.engine.deepseek import config, layout
from worker.engine.deepseek.config import Version
from worker.engine.deepseek.errors import CheckpointMissing, CheckpointWrong

# Of the published files what they say of the network.
LANGUAGE: dict[str, Any] = {
    "bos_token_id": 0,
    "eos_token_id": 1,
    "first_k_dense_replace": 1,
    "hidden_size": 1280,
    "intermediate_size": 6848,
    "kv_lora_rank": None,
    "lm_head": True,
    "max_position_embeddings": 8192,
    "moe_intermediate_size": 896,
    "n_group": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_attention_heads": 10,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 12,
    "num_key_value_heads": 10,
    "q_lora_rank": None,
    "qk_nope_head_dim": 0,
    "rm_head": False,
    "topk_group": 1,
    "topk_method": "greedy",
    "use_mla": False,
    "v_head_dim": 0,
    "vocab_size": 129280,
}
SAM = {
    "downsample_channels": [512, 1024],  # stale in version 2
    "global_attn_indexes": [2, 5, 8, 11],
    "heads": 12,
    "layers": 12,
    "width": 768,
}
CLIP = {"heads": 16, "image_size": 224, "layers": 24, "patch_size": 14, "width": 1024}


def official(version: Version) -> dict[str, Any]:
    encoder = {"clip-l-14-224": CLIP} if version == 1 else {"qwen2-0-5b": {"dim": 896}}
    return {
        "architectures": ["DeepseekOCRForCausalLM" if version == 1 else "DeepseekOCR2ForCausalLM"],
        "auto_map": {"AutoModel": "modeling_deepseekocr.DeepseekOCRForCausalLM"},
        "candidate_resolutions": [[1024, 1024]],
        "global_view_pos": "head",
        "language_config": LANGUAGE,
        "model_type": "deepseek_vl_v2",
        "projector_config": {"input_dim": 2048 if version == 1 else 896, "n_embed": 1280},
        "tile_tag": "2D",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.46.3",
        "vision_config": {"mlp_ratio": 3.7362, "width": {"sam_vit_b": SAM, **encoder}},
        **LANGUAGE,
    }


@pytest.mark.parametrize(
    ("version", "tensors", "parameters"), [(1, 2_710, 3_336_106_240), (2, 2_707, 3_389_119_360)]
)
def test_the_layout_has_the_tensors_of_the_official_index(
    version: Version, tensors: int, parameters: int
) -> None:
    shapes = layout.shapes(config.parse(official(version)))

    assert len(shapes) == tensors
    assert sum(prod(shape) for shape in shapes.values()) == parameters


def test_the_two_versions_are_told_apart() -> None:
    first, second = config.parse(official(1)), config.parse(official(2))

    assert (first.version, first.feature_size, first.sam_channels) == (1, 2048, 1024)
    assert (second.version, second.feature_size, second.sam_channels) == (2, 896, 896)
    assert first.clip is not None and first.query is None
    assert second.query is not None and second.clip is None


def test_the_shape_of_the_decoder_is_read() -> None:
    language = config.parse(official(1)).language

    assert (language.head_size, language.num_hidden_layers) == (128, 12)
    assert [language.is_dense(number) for number in (0, 1, 11)] == [True, False, False]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["LlamaForCausalLM"]}, "architectures"),
        ({"architectures": "DeepseekOCRForCausalLM"}, "architectures"),
        ({"architectures": [["nested"]]}, "architectures"),
        ({"language_config": {"use_mla": True}}, "use_mla"),
        ({"language_config": {"num_key_value_heads": 2}}, "grouped-query"),
        ({"language_config": {"norm_topk_prob": True}}, "norm_topk_prob"),
        ({"language_config": {"hidden_size": -1}}, "hidden_size"),
        ({"language_config": {"hidden_size": 10**9}}, "hidden_size"),
        ({"language_config": {"hidden_size": 1281}}, "heads"),
        ({"language_config": {"n_routed_experts": 4}}, "experts"),
        ({"language_config": []}, "language_config"),
        ({"vision_config": {"width": "wide"}}, "width"),
        ({"projector_config": {"input_dim": 896}}, "projector"),
        ({"torch_dtype": "int8"}, "torch_dtype"),
    ],
)
def test_what_this_network_does_not_do_is_refused_by_name(
    change: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointWrong, match=said):
        config.parse(official(1) | change)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, "\xff"])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, encoding="latin-1")

    with pytest.raises(CheckpointWrong, match=r"config\.json"):
        config.read(tmp_path)


def test_a_config_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(" " * 2_000_000 + json.dumps(official(1)))

    with pytest.raises(CheckpointWrong, match=r"config\.json"):
        config.read(tmp_path)


def test_a_folder_without_config_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointMissing, match=r"config\.json"):
        config.read(tmp_path)
