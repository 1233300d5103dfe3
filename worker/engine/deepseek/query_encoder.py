"""The second vision encoder of version 2: Qwen2's layers, in which queries read the image.

The image's tokens see each other; a query sees all of them and the queries before it. Only what
the queries come to goes on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from worker.engine.deepseek import rotary
from worker.engine.deepseek.config import QueryConfig
from worker.engine.deepseek.layout import QUERIES

EPS = 1e-6


class Attention(nn.Module):
    """Few keys for many queries; bias on q, k and v, none on o."""

    def __init__(self, config: QueryConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.size = config.dim // config.heads
        self.qkv = nn.Linear(config.dim, (self.heads + 2 * self.kv_heads) * self.size)
        self.o_proj = nn.Linear(config.dim, config.dim, bias=False)

    def forward(self, x: Tensor, turned: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) to the same."""
        batch, count, channels = x.shape
        split = self.qkv(x).view(batch, count, -1, self.size).transpose(1, 2)
        q, k, v = split.split([self.heads, self.kv_heads, self.kv_heads], 1)
        q, k = rotary.rotate(q, turned), rotary.rotate(k, turned)
        out = F.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, count, channels))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: QueryConfig) -> None:
        super().__init__()
        self.gate_up = nn.Linear(config.dim, 2 * config.mlp, bias=False)
        self.down_proj = nn.Linear(config.mlp, config.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class Layer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, config: QueryConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.dim, EPS)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, EPS)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, turned: Tensor, mask: Tensor) -> Tensor:
        """(B, T, C) to the same."""
        x = x + self.self_attn(self.input_layernorm(x), turned, mask)
        return x + self.mlp(self.post_attention_layernorm(x))


class Layers(nn.Module):
    """All layers and the norm behind them."""

    def __init__(self, config: QueryConfig) -> None:
        super().__init__()
        self.size, self.theta = config.dim // config.heads, config.rope_theta
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, EPS)

    def forward(self, x: Tensor, images: int) -> Tensor:
        """(B, T, C) to the same, the first `images` of the T being the image's."""
        count = x.shape[1]
        turned = rotary.angles(count, self.size, self.theta, x.device)
        mask = torch.ones(count, count, dtype=torch.bool, device=x.device).tril()
        mask[:images, :images] = True
        for layer in self.layers:
            x = layer(x, turned, mask)
        return self.norm(x)


class QueryEncoder(nn.Module):
    """SAM's (B, C, n, n) to (B, n * n, C), for n 12 or 16."""

    def __init__(self, config: QueryConfig) -> None:
        super().__init__()
        self.query_768 = nn.Embedding(QUERIES[768], config.dim)
        self.query_1024 = nn.Embedding(QUERIES[1024], config.dim)
        self.model = nn.ModuleDict({"model": Layers(config)})  # two deep, as in the file

    def forward(self, patches: Tensor) -> Tensor:
        """What the queries came to."""
        tokens = patches.flatten(2).transpose(1, 2)
        batch, count, _ = tokens.shape
        queries = {QUERIES[768]: self.query_768, QUERIES[1024]: self.query_1024}[count].weight
        both = torch.cat([tokens, queries.expand(batch, -1, -1)], 1)
        found: Tensor = self.model["model"](both, count)
        return found[:, count:]
