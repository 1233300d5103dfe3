"""CLIP-L, the second vision encoder of version 1. It takes SAM's output for its patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from worker.engine.deepseek.config import ClipConfig
from worker.engine.deepseek.sam import resized

EPS = 1e-5


class Embeddings(nn.Module):
    """A token for the whole, then the patches, each with its position."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.grid = config.grid
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.position_embedding = nn.Embedding(config.grid**2 + 1, config.width)

    def forward(self, patches: Tensor) -> Tensor:
        """(B, C, n, n) to (B, 1 + n * n, C)."""
        batch, channels, side, _ = patches.shape
        first = self.class_embedding.expand(batch, 1, -1)
        tokens = torch.cat([first, patches.flatten(2).transpose(1, 2)], 1)
        whole, rest = self.position_embedding.weight.split([1, self.grid**2])
        rest = resized(rest.view(1, self.grid, self.grid, channels), side)
        return tokens + torch.cat([whole, rest.reshape(-1, channels)])


class Attention(nn.Module):
    """Everything sees everything."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv_proj = nn.Linear(config.width, 3 * config.width)
        self.out_proj = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same."""
        batch, count, channels = x.shape
        split = self.qkv_proj(x).view(batch, count, 3, self.heads, -1)
        q, k, v = split.permute(2, 0, 3, 1, 4).unbind(0)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(out.transpose(1, 2).reshape(batch, count, channels))


class Mlp(nn.Module):
    """Two layers with the quick GELU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        x = self.fc1(x)
        return self.fc2(x * torch.sigmoid(1.702 * x))


class Layer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, EPS)
        self.self_attn = Attention(config)
        self.layer_norm2 = nn.LayerNorm(config.width, EPS)
        self.mlp = Mlp(config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same."""
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Transformer(nn.Module):
    """All layers."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to the same."""
        for layer in self.layers:
            x = layer(x)
        return x


class Clip(nn.Module):
    """SAM's (B, C, n, n) to (B, n * n, C); no norm at the end."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, EPS)  # so spelled
        self.transformer = Transformer(config)

    def forward(self, patches: Tensor) -> Tensor:
        """Without the token for the whole."""
        return self.transformer(self.pre_layrnorm(self.embeddings(patches)))[:, 1:]
