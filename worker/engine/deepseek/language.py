"""The decoder of both models: Llama's attention, and experts in all layers but the first.

Tokens lie flat, (T, C), whosesoever they are; who sees whom is for `attend` to say (`cache.py`).
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from worker.engine.deepseek import rotary
from worker.engine.deepseek.config import LanguageConfig


class Attend(Protocol):
    """How tokens see each other in one pass through the layers."""

    positions: Tensor
    """(T,), of each token in its page."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(T, heads, size) each, to the same."""


class Attention(nn.Module):
    """Plain multi-head attention, without bias."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor, turned: Tensor, attend: Attend, layer: int) -> Tensor:
        """(T, C) to the same."""
        q, k, v = self.qkv(x).view(x.shape[0], 3, self.heads, -1).unbind(1)
        out = attend(layer, rotary.rotate(q, turned), rotary.rotate(k, turned), v)
        return self.o_proj(out.reshape(x.shape))


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down_proj(F.silu(gate) * up)


class Experts(nn.Module):
    """Many small SwiGLUs, each for the rows that are meant for it."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        count, width, inner = (
            config.n_routed_experts,
            config.hidden_size,
            config.moe_intermediate_size,
        )
        self.gate_up = nn.Parameter(torch.empty(count, 2 * inner, width))
        self.down_proj = nn.Parameter(torch.empty(count, width, inner))

    def forward(self, rows: Tensor, ends: Tensor) -> Tensor:
        """`rows` (R, C) sorted by expert; `ends` (experts,) int32, where those of each end."""
        both = F.grouped_mm(rows, self.gate_up.transpose(1, 2), offs=ends)
        gate, up = both.chunk(2, -1)
        return F.grouped_mm(F.silu(gate) * up, self.down_proj.transpose(1, 2), offs=ends)


class MixtureOfExperts(nn.Module):
    """The few experts that a router chooses for each token, and one that all share."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.used = config.num_experts_per_tok
        shared = config.n_shared_experts * config.moe_intermediate_size
        self.gate = nn.Linear(config.hidden_size, config.n_routed_experts, bias=False)
        self.experts = Experts(config)
        self.shared_experts = Mlp(config.hidden_size, shared)

    def forward(self, x: Tensor) -> Tensor:
        """(T, C) to the same. The weights of the chosen are not made to add up to one."""
        scores = F.linear(x.float(), self.gate.weight.float()).softmax(-1)
        weights, chosen = scores.topk(self.used)
        by_expert, order = chosen.flatten().sort(stable=True)
        experts = torch.arange(scores.shape[1], device=x.device)
        ends = torch.searchsorted(by_expert, experts, right=True).int()
        out = self.experts(x[order // self.used], ends)
        # Back in each token's own order before the sum, which is then the same every time.
        out = out[order.argsort()].view(*chosen.shape, -1) * weights.to(x.dtype)[..., None]
        return out.sum(1) + self.shared_experts(x)


class Layer(nn.Module):
    """One pre-norm layer."""

    def __init__(self, config: LanguageConfig, number: int) -> None:
        super().__init__()
        self.number = number
        self.input_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp: nn.Module = (
            Mlp(config.hidden_size, config.intermediate_size)
            if config.is_dense(number)
            else MixtureOfExperts(config)
        )

    def forward(self, x: Tensor, turned: Tensor, attend: Attend) -> Tensor:
        """(T, C) to the same."""
        x = x + self.self_attn(self.input_layernorm(x), turned, attend, self.number)
        return x + self.mlp(self.post_attention_layernorm(x))
