"""Pages to the vectors that stand for them in a prompt, many pages at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from worker.engine.deepseek.network import Network
from worker.engine.deepseek.views import Grid, Pixels, Views

# Of the pictures that are seen at once; more need memory, and gain little.
MOST_PIXELS = 8 * 1024**2


@torch.inference_mode()
def features(network: Network, pages: Sequence[Views]) -> list[Tensor]:
    """For each page its features in the order in which the model expects them, (tokens, C).

    Views of one size are seen together, whosesoever they are.
    """
    wholes = _seen(network, [page.whole for page in pages])
    tiles = iter(_seen(network, [tile for page in pages for tile in page.tiles]))
    return [
        _arranged(network, whole, [next(tiles) for _ in page.tiles], page.grid)
        for page, whole in zip(pages, wholes, strict=True)
    ]


def _seen(network: Network, pictures: list[Pixels]) -> list[Tensor]:
    """Features of each picture, (n * n, C)."""
    found: list[Tensor] = [torch.empty(0)] * len(pictures)
    by_side = sorted(range(len(pictures)), key=lambda at: pictures[at].shape[0])
    for side, places in groupby(by_side, key=lambda at: pictures[at].shape[0]):
        for chunk in _chunks(list(places), max(1, MOST_PIXELS // side**2)):
            pixels = torch.from_numpy(np.stack([pictures[at] for at in chunk]))
            for at, features in zip(chunk, network.see(pixels), strict=True):
                found[at] = features
    return found


def _chunks(places: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _arranged(network: Network, whole: Tensor, tiles: list[Tensor], grid: Grid) -> Tensor:
    """Tiles, the whole, separator. Version 1 ends each row of features with a newline."""
    separator = network.model.view_seperator[None]
    if network.config.version != 1:
        return torch.cat([*tiles, whole, separator])
    newline = network.model.image_newline
    parts = [_lines(_square(whole), newline), separator]
    if tiles:
        parts.insert(0, _lines(_sheet(tiles, grid), newline))
    return torch.cat(parts)


def _square(features: Tensor) -> Tensor:
    side = int(features.shape[0] ** 0.5)
    return features.view(side, side, -1)


def _sheet(tiles: list[Tensor], grid: Grid) -> Tensor:
    """Tiles row by row as one picture, (height, width, C)."""
    columns, rows = grid
    squares = [_square(tile) for tile in tiles]
    return torch.cat(
        [torch.cat(squares[row * columns : (row + 1) * columns], 1) for row in range(rows)]
    )


def _lines(square: Tensor, newline: Tensor) -> Tensor:
    """(h, w, C) to (h * (w + 1), C)."""
    return torch.cat([square, newline.expand(square.shape[0], 1, -1)], 1).flatten(0, 1)
