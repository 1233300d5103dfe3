"""What keeps the model from saying the same for ever: no n tokens twice within a window.

The rule, on what was put out alone: if the last n - 1 tokens stand somewhere in the last `window`
with a token behind them, that token is not said again here, unless it is spared. It breaks loops
whose period is at most window - n + 1. All on the device: nothing here waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worker.engine.deepseek.tokens import CELL, END_CELL


@dataclass(frozen=True)
class Rule:
    """No `n` tokens twice in the last `window`; n = 0 is no rule."""

    n: int
    window: int


PUBLISHED = Rule(30, 90)  # of the model's own recipe
NONE = Rule(0, 0)
MOST = Rule(40, 128)  # the largest n and window that a row may have


def forbid(logits: Tensor, recent: Tensor, counts: Tensor, n: Tensor, window: Tensor) -> None:
    """Make what each row's rule forbids impossible, in place.

    `logits` (B, V); `recent` (B, W) the row's last outputs, newest last, -1 where there are none;
    `counts` (B,) how many there are in all; `n` and `window` (B,). W is `reach()`.
    """
    before = MOST.n - 1
    runs = recent[:, :-1].unfold(1, before, 1)  # (B, R, before), each with a token behind it
    behind = recent[:, before:].long()
    nth_last = torch.arange(before, 0, -1, device=logits.device)  # of a place in a run
    beyond = nth_last > (n - 1)[:, None]  # this row's n does not reach so far back
    same = ((runs == recent[:, None, -before:]) | beyond[:, None]).all(-1)
    ago = torch.arange(behind.shape[1], 0, -1, device=logits.device)  # 1: the last output
    inside = ago + (n - 1)[:, None] <= torch.minimum(counts, window)[:, None]
    spared = (behind == CELL) | (behind == END_CELL)  # empty cells of a table do repeat
    banned = same & inside & ~spared & (n > 0)[:, None]
    low, high = float("-inf"), float("inf")
    logits.scatter_reduce_(
        1, behind.clamp(min=0), torch.where(banned, low, high).to(logits.dtype), "amin"
    )


def reach() -> int:
    """How many of the last outputs `forbid` wants to see."""
    return MOST.window + MOST.n - 1
