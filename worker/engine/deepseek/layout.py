"""Which tensors a checkpoint holds, by their official names, and the shape of each."""

from __future__ import annotations

from collections.abc import Iterator

from worker.engine.deepseek.config import (
    ClipConfig,
    LanguageConfig,
    ModelConfig,
    QueryConfig,
    SamConfig,
)

Shape = tuple[int, ...]
Named = Iterator[tuple[str, Shape]]

QUERIES = {768: 144, 1024: 256}  # version 2: queries for a view of so many pixels a side

UNUSED = frozenset({"model.vision_model.embeddings.patch_embedding.weight"})
"""In the official file, but no part of the computation: SAM's output takes its place."""


def shapes(config: ModelConfig) -> dict[str, Shape]:
    """Official name -> shape, of every tensor of such a model."""
    width = config.language.hidden_size
    found = dict(_language(config.language))
    found["model.view_seperator"] = (width,)  # so spelled
    found["model.projector.layers.weight"] = (width, config.feature_size)
    found["model.projector.layers.bias"] = (width,)
    found.update(_sam(config.sam, config.sam_channels))
    if config.clip is not None:
        found["model.image_newline"] = (width,)
        found.update(_clip(config.clip))
    if config.query is not None:
        found.update(_query(config.query))
    return found


def _language(c: LanguageConfig) -> Named:
    yield "lm_head.weight", (c.vocab_size, c.hidden_size)
    yield "model.embed_tokens.weight", (c.vocab_size, c.hidden_size)
    yield "model.norm.weight", (c.hidden_size,)
    for number in range(c.num_hidden_layers):
        layer = f"model.layers.{number}."
        yield layer + "input_layernorm.weight", (c.hidden_size,)
        yield layer + "post_attention_layernorm.weight", (c.hidden_size,)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield f"{layer}self_attn.{name}.weight", (c.hidden_size, c.hidden_size)
        if c.is_dense(number):
            yield from _swiglu(layer + "mlp.", c.hidden_size, c.intermediate_size)
        else:
            yield from _experts(layer + "mlp.", c)


def _experts(mlp: str, c: LanguageConfig) -> Named:
    yield mlp + "gate.weight", (c.n_routed_experts, c.hidden_size)
    for number in range(c.n_routed_experts):
        yield from _swiglu(f"{mlp}experts.{number}.", c.hidden_size, c.moe_intermediate_size)
    shared = c.n_shared_experts * c.moe_intermediate_size
    yield from _swiglu(mlp + "shared_experts.", c.hidden_size, shared)


def _swiglu(mlp: str, width: int, inner: int) -> Named:
    yield mlp + "gate_proj.weight", (inner, width)
    yield mlp + "up_proj.weight", (inner, width)
    yield mlp + "down_proj.weight", (width, inner)


def _both(name: str, *shape: int) -> Named:
    yield name + ".weight", shape
    yield name + ".bias", shape[:1]


def _sam(c: SamConfig, channels: int) -> Named:
    model = "model.sam_model."
    yield model + "pos_embed", (1, c.grid, c.grid, c.width)
    yield from _both(model + "patch_embed.proj", c.width, 3, c.patch_size, c.patch_size)
    for number in range(c.layers):
        block = f"{model}blocks.{number}."
        size = c.grid if number in c.global_attn_indexes else c.window_size
        yield from _both(block + "norm1", c.width)
        yield from _both(block + "attn.qkv", 3 * c.width, c.width)
        yield from _both(block + "attn.proj", c.width, c.width)
        yield block + "attn.rel_pos_h", (2 * size - 1, c.head_size)
        yield block + "attn.rel_pos_w", (2 * size - 1, c.head_size)
        yield from _both(block + "norm2", c.width)
        yield from _both(block + "mlp.lin1", 4 * c.width, c.width)
        yield from _both(block + "mlp.lin2", c.width, 4 * c.width)
    yield model + "neck.0.weight", (c.neck, c.width, 1, 1)
    yield from _both(model + "neck.1", c.neck)
    yield model + "neck.2.weight", (c.neck, c.neck, 3, 3)
    yield from _both(model + "neck.3", c.neck)
    yield model + "net_2.weight", (c.downsample_channels[0], c.neck, 3, 3)
    yield model + "net_3.weight", (channels, c.downsample_channels[0], 3, 3)


def _clip(c: ClipConfig) -> Named:
    model = "model.vision_model."
    yield model + "embeddings.class_embedding", (c.width,)
    yield model + "embeddings.patch_embedding.weight", (c.width, 3, c.patch_size, c.patch_size)
    yield model + "embeddings.position_embedding.weight", (c.grid**2 + 1, c.width)
    yield from _both(model + "pre_layrnorm", c.width)  # so spelled
    for number in range(c.layers):
        layer = f"{model}transformer.layers.{number}."
        yield from _both(layer + "layer_norm1", c.width)
        yield from _both(layer + "self_attn.qkv_proj", 3 * c.width, c.width)
        yield from _both(layer + "self_attn.out_proj", c.width, c.width)
        yield from _both(layer + "layer_norm2", c.width)
        yield from _both(layer + "mlp.fc1", 4 * c.width, c.width)
        yield from _both(layer + "mlp.fc2", c.width, 4 * c.width)


def _query(c: QueryConfig) -> Named:
    model = "model.qwen2_model."
    for side, count in QUERIES.items():
        yield f"{model}query_{side}.weight", (count, c.dim)
    narrow = c.dim // c.heads * c.kv_heads
    yield model + "model.model.norm.weight", (c.dim,)
    for number in range(c.layers):
        layer = f"{model}model.model.layers.{number}."
        yield layer + "input_layernorm.weight", (c.dim,)
        yield layer + "post_attention_layernorm.weight", (c.dim,)
        yield from _both(layer + "self_attn.q_proj", c.dim, c.dim)
        yield from _both(layer + "self_attn.k_proj", narrow, c.dim)
        yield from _both(layer + "self_attn.v_proj", narrow, c.dim)
        yield layer + "self_attn.o_proj.weight", (c.dim, c.dim)
        yield from _swiglu(layer + "mlp.", c.dim, c.mlp)
