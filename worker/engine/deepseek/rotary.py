"""Rotary positions, half-split: of the decoder, and of version 2's second encoder."""

from __future__ import annotations

import torch
from torch import Tensor


def angles(positions: int, size: int, theta: float, device: torch.device) -> Tensor:
    """(positions, 2, size): cosine and sine for each position, in fp32."""
    exponents = torch.arange(0, size, 2, dtype=torch.float32, device=device) / size
    frequencies = 1.0 / theta**exponents
    turned = torch.arange(positions, dtype=torch.float32, device=device)[:, None] * frequencies
    turned = torch.cat([turned, turned], -1)
    return torch.stack([turned.cos(), turned.sin()], 1)


def rotate(x: Tensor, turned: Tensor) -> Tensor:
    """`x` (..., T, size) with `turned` (..., T, 2, size), which is cast to its type."""
    cosine, sine = turned.to(x.dtype).unbind(-2)
    left, right = x.chunk(2, -1)
    return x * cosine + torch.cat([-right, left], -1) * sine
