"""From the host to the device, without the host waiting for what the device still has to do."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def numbers(values: Iterable[int], device: torch.device) -> Tensor:
    """As int64 on the device."""
    return sent(torch.tensor(list(values), dtype=torch.int64), device)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's, on the device.

    A card fetches it by itself out of memory that stays in place; any other copy would wait.
    """
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
