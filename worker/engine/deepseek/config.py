"""The shape of a model, from the `config.json` that its makers published.

The file is read as data: nothing in it names code that is run. What it does not say (the width of
a vision MLP, for one) is the same in every published checkpoint, and stands here as a default; a
file may say it nevertheless, which is how small checkpoints for tests are described. Where it asks
for something that this network does not do, it is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from worker.engine.deepseek.errors import CheckpointMissing, CheckpointWrong

CONFIG_FILE = "config.json"
MAX_CONFIG_BYTES = 1024**2

Version = Literal[1, 2]
Size = Annotated[int, Field(ge=1, le=1_000_000)]

NAMES: dict[Version, str] = {1: "deepseek-ocr", 2: "deepseek-ocr-2"}
"""How the engines of the two are called."""

_VERSIONS: dict[str, Version] = {"DeepseekOCRForCausalLM": 1, "DeepseekOCR2ForCausalLM": 2}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LanguageConfig(_Part):
    """The decoder: the same in both models. `Literal` marks what this network does in one way."""

    vocab_size: Size = 129280
    hidden_size: Size = 1280
    intermediate_size: Size = 6848  # of the dense layers
    moe_intermediate_size: Size = 896
    num_hidden_layers: Size = 12
    num_attention_heads: Size = 10
    num_key_value_heads: Size = 10
    n_routed_experts: Size = 64
    n_shared_experts: Size = 2
    num_experts_per_tok: Size = 6
    first_k_dense_replace: Annotated[int, Field(ge=0)] = 1
    max_position_embeddings: Size = 8192
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    hidden_act: Literal["silu"] = "silu"
    scoring_func: Literal["softmax"] = "softmax"
    topk_method: Literal["greedy"] = "greedy"
    routed_scaling_factor: Literal[1] = 1
    use_mla: Literal[False] = False
    attention_bias: Literal[False] = False
    norm_topk_prob: Literal[False] = False
    tie_word_embeddings: Literal[False] = False
    rope_scaling: None = None

    @model_validator(mode="after")
    def _fits(self) -> LanguageConfig:
        if self.num_key_value_heads != self.num_attention_heads:
            raise ValueError("grouped-query attention")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError("hidden_size is not divided by the heads")
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError("more experts are used than there are")
        return self

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads

    def is_dense(self, layer: int) -> bool:
        """Whether that layer has one MLP and no experts."""
        return layer < self.first_k_dense_replace


class SamConfig(_Part):
    """The first vision encoder: SAM ViT-B and two convolutions of stride 2 behind it."""

    width: Size = 768
    layers: Size = 12
    heads: Size = 12
    global_attn_indexes: tuple[int, ...] = (2, 5, 8, 11)
    downsample_channels: tuple[Size, ...] = (512, 1024)  # the last is stale in version 2's file
    neck: Size = 256
    image_size: Size = 1024
    patch_size: Size = 16
    window_size: Size = 14

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.width // self.heads

    @property
    def grid(self) -> int:
        """Patches on a side of the image that the position table was made for."""
        return self.image_size // self.patch_size


class ClipConfig(_Part):
    """The second vision encoder of version 1."""

    width: Size = 1024
    layers: Size = 24
    heads: Size = 16
    image_size: Size = 224
    patch_size: Size = 14

    @property
    def grid(self) -> int:
        """Patches on a side of the image that the position table was made for."""
        return self.image_size // self.patch_size


class QueryConfig(_Part):
    """The second vision encoder of version 2: Qwen2's layers over image tokens and queries."""

    dim: Size = 896
    layers: Size = 24
    heads: Size = 14
    kv_heads: Size = 2
    mlp: Size = 4864
    rope_theta: float = 1_000_000.0


class ModelConfig(_Part):
    """A whole model."""

    version: Version
    torch_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    language: LanguageConfig
    sam: SamConfig
    clip: ClipConfig | None = None  # version 1
    query: QueryConfig | None = None  # version 2

    @property
    def feature_size(self) -> int:
        """Width of what the projector takes."""
        if self.clip is not None:
            return self.clip.width + self.sam_channels
        return self.sam_channels

    @property
    def sam_channels(self) -> int:
        """Width of what SAM gives: in version 2 the second encoder takes it as it is."""
        return self.query.dim if self.query is not None else self.sam.downsample_channels[-1]


def read(folder: Path) -> ModelConfig:
    """The config of the checkpoint in `folder`. Raises CheckpointMissing or CheckpointWrong."""
    path = folder / CONFIG_FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES)
    except OSError as error:
        raise CheckpointMissing(f"{path}: {error.strerror}") from error
    try:
        return parse(json.loads(data))
    except (CheckpointWrong, ValueError, RecursionError) as error:
        raise CheckpointWrong(f"{path}: {error}") from error


def parse(raw: Any) -> ModelConfig:
    """The config that a decoded `config.json` describes. Raises CheckpointWrong."""
    if not isinstance(raw, dict):
        raise CheckpointWrong("no JSON object")
    version = _version(raw)
    widths = _object(_object(raw, "vision_config"), "width")
    parts = {"sam": _object(widths, "sam_vit_b")}
    if version == 1:
        parts["clip"] = _object(widths, "clip-l-14-224")
    else:
        parts["query"] = _object(widths, "qwen2-0-5b")
    try:
        config = ModelConfig.model_validate(
            {
                "version": version,
                "torch_dtype": raw.get("torch_dtype", "bfloat16"),
                "language": raw | _object(raw, "language_config"),
                **parts,
            }
        )
    except ValidationError as error:
        raise CheckpointWrong(_said_of(error)) from error
    said = _object(raw, "projector_config").get("input_dim", config.feature_size)
    if said != config.feature_size:
        raise CheckpointWrong(
            f"the projector takes {said}, the encoders give {config.feature_size}"
        )
    return config


def _version(raw: dict[str, Any]) -> Version:
    said = raw.get("architectures")
    names = said if isinstance(said, list) else []
    found = {_VERSIONS[name] for name in names if isinstance(name, str) and name in _VERSIONS}
    if len(found) != 1:
        raise CheckpointWrong(f"architectures is {said!r}; there are {', '.join(_VERSIONS)}")
    return found.pop()


def _object(raw: dict[str, Any], name: str) -> dict[str, Any]:
    found = raw.get(name, {})
    if not isinstance(found, dict):
        raise CheckpointWrong(f"{name} is no JSON object")
    return found


def _said_of(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, one['loc']))}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False)
    )
