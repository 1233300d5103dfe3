"""Both sides on the same tiny checkpoints, loaded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Tiny
from tests.parity import reference
from worker.engine.deepseek import checkpoint, prompts, views, weights
from worker.engine.deepseek.checkpoint import TOKENIZER_FILE
from worker.engine.deepseek.config import Version
from worker.engine.deepseek.network import Network
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.tokens import Tokenizer
from worker.engine.deepseek.views import MODES, Views


@dataclass(frozen=True)
class Sides:
    """Our network and the reference, with the same weights."""

    version: Version
    ours: Network
    theirs: Any
    tokenizer: Tokenizer


@dataclass(frozen=True)
class Page:
    """A page as both sides are given it."""

    views: Views
    prompt: list[int]


@pytest.fixture(scope="session")
def both(tiny: Tiny) -> Iterator[Callable[[Version], Sides]]:
    made: dict[Version, Sides] = {}

    def sides(version: Version) -> Sides:
        if version not in made:
            found = checkpoint.inspect(tiny(version))
            ours = weights.load(found, device=torch.device("cpu"), dtype=torch.float32)
            tokenizer = Tokenizer(found.folder / TOKENIZER_FILE)
            made[version] = Sides(version, ours, reference.load(found.folder), tokenizer)
        return made[version]

    yield sides
    made.clear()


def drawn(
    sides: Sides, mode: str, seed: int, size: tuple[int, int] = (620, 877), use: Use = Use.DOCUMENT
) -> Page:
    """A page of noise, different for each seed."""
    dice = np.random.default_rng(seed)
    noise = dice.integers(0, 256, (size[1] // 16 + 1, size[0] // 16 + 1, 3), dtype=np.uint8)
    chosen = MODES[sides.version][mode]
    cut = views.of(Image.fromarray(noise).resize(size), chosen)
    places = views.tokens(sides.version, chosen, cut.grid)
    return Page(cut, prompts.ids(sides.tokenizer, use, images=places))
