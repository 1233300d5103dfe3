"""Keys and values of all pages that are being read, in blocks that a page owns while it is read.

A layer's keys are (blocks, heads, BLOCK_TOKENS, size), its values too: what attention reads of one
head lies together. Which blocks are whose is the business of `blocks.py`. The two ways of attending
write what is new and read what is there: `Prompts` whole prompts side by side, `Rows` one token
each of many pages. Neither waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from worker.engine.deepseek import transfer
from worker.engine.deepseek.blocks import BLOCK_TOKENS
from worker.engine.deepseek.config import LanguageConfig


@dataclass(frozen=True)
class Group:
    """So many pages, none of which has more blocks filled than this."""

    rows: int
    blocks: int


class KvCache:
    """The memory itself. It is allocated once, and never grows."""

    def __init__(
        self, config: LanguageConfig, blocks: int, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.heads = config.num_attention_heads
        shape = (blocks, config.num_attention_heads, BLOCK_TOKENS, config.head_size)
        layers = range(config.num_hidden_layers)
        # Zeros: what no page has written yet is masked, but 0 * nan would be nan.
        self.keys = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]
        self.values = [torch.zeros(shape, dtype=dtype, device=device) for _ in layers]

    def write(self, layer: int, places: tuple[Tensor, Tensor], k: Tensor, v: Tensor) -> None:
        """Keep `k` and `v`, each (T, heads, size), at `places`: blocks and offsets in them, (T,)."""
        blocks, offsets = places
        self.keys[layer][blocks, :, offsets] = k
        self.values[layer][blocks, :, offsets] = v


class Prompts:
    """Prompts that are read at once, packed one behind the other; each sees itself alone."""

    def __init__(self, cache: KvCache, tables: Sequence[Sequence[int]], lengths: list[int]) -> None:
        """`tables` are each page's blocks, `lengths` its tokens."""
        device = cache.keys[0].device
        self._cache, self._lengths = cache, lengths
        positions = torch.cat([torch.arange(length) for length in lengths])
        blocks = torch.cat(
            [
                torch.tensor(table)[torch.arange(length) // BLOCK_TOKENS]
                for table, length in zip(tables, lengths, strict=True)
            ]
        )
        self.positions = transfer.sent(positions, device)
        self._places = (transfer.sent(blocks, device), self.positions % BLOCK_TOKENS)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(T, heads, size) each, to the same."""
        self._cache.write(layer, self._places, k, v)
        pages = zip(*(x.split(self._lengths) for x in (q, k, v)), strict=True)
        return torch.cat([_causal(*page) for page in pages])


def _causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)[0].transpose(0, 1)


class Rows:
    """One token each of many pages, which sees what its page has in the cache, and itself.

    What a page has is gathered before it is looked at, as far as the longest of its group reaches:
    groups of pages alike in length gather little in vain, and bound the memory that it takes.
    """

    positions: Tensor

    def __init__(self, cache: KvCache, tables: Tensor, groups: Sequence[Group]) -> None:
        """`tables` (B, blocks) of the pages in the order of the `groups`."""
        self._cache, self._tables = cache, tables
        self._counts = [group.rows for group in groups]
        heads = torch.arange(cache.heads, device=tables.device)[:, None]
        # A head's share of a block is one piece: (rows, heads, blocks) of their numbers.
        self._pieces = [
            part[:, None, : group.blocks] * cache.heads + heads
            for part, group in zip(tables.split(self._counts), groups, strict=True)
        ]

    def at(self, positions: Tensor) -> Rows:
        """The same pages, now with their tokens at `positions` (B,)."""
        self.positions = positions
        block = self._tables.gather(1, (positions // BLOCK_TOKENS)[:, None])[:, 0]
        self._places = (block, positions % BLOCK_TOKENS)
        self._masks = [
            self._mask(pieces, part)
            for pieces, part in zip(self._pieces, positions.split(self._counts), strict=True)
        ]
        return self

    def _mask(self, pieces: Tensor, positions: Tensor) -> Tensor:
        reach = torch.arange(pieces.shape[2] * BLOCK_TOKENS, device=positions.device)
        return (reach <= positions[:, None])[:, None, None]

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """(B, heads, size) each, to the same."""
        self._cache.write(layer, self._places, k, v)
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        parts = zip(q[:, :, None].split(self._counts), self._pieces, self._masks, strict=True)
        out = [
            F.scaled_dot_product_attention(
                part, _gathered(keys, pieces), _gathered(values, pieces), mask
            )
            for part, pieces, mask in parts
        ]
        return torch.cat(out)[:, :, 0]


def _gathered(store: Tensor, pieces: Tensor) -> Tensor:
    """(rows, heads, tokens, size)."""
    found = store.flatten(0, 1).index_select(0, pieces.flatten())
    return found.view(*pieces.shape[:2], -1, store.shape[-1])
