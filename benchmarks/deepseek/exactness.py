"""Whether our network on the card says what the reference says on the CPU, both in fp32."""

from __future__ import annotations

import gc
import io
from collections.abc import Sequence as Many
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.deepseek.pages import A4, drawn
from tests.parity import reference
from worker.engine.deepseek import checkpoint, encoder, prompts, repeats, views, weights
from worker.engine.deepseek.batch import Batch
from worker.engine.deepseek.blocks import blocks_for
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.scheduler import Scheduler, Sequence
from worker.engine.deepseek.tokens import Tokenizer
from worker.engine.deepseek.views import MODES

SEED = 77


def check(folder: Path, device: torch.device, modes: Many[str], tokens: int) -> dict[str, Any]:
    """Greedy tokens of a page in each mode, read side by side by us and one by one by them."""
    torch.backends.cudnn.allow_tf32 = False
    found = checkpoint.inspect(folder)
    version, tokenizer = found.config.version, Tokenizer(folder / checkpoint.TOKENIZER_FILE)
    image = Image.open(io.BytesIO(drawn(SEED, A4)))
    cut = [views.of(image, MODES[version][mode]) for mode in modes]
    asked = [
        prompts.ids(tokenizer, Use.DOCUMENT, images=views.tokens(version, one.mode, one.grid))
        for one in cut
    ]
    network = weights.load(found, device=device, dtype=torch.float32)
    ours = _read(network, cut, asked, tokens)
    del network
    gc.collect()
    theirs = reference.load(folder, torch.float32)
    equal = {
        mode: output
        == reference.generate(theirs, prompt, one, version, most=tokens, rule=repeats.PUBLISHED)
        for mode, prompt, one, output in zip(modes, asked, cut, ours, strict=True)
    }
    return {"tokens": tokens, "distinct": len(set(chain(*ours))), "equal": equal}


def _read(
    network: Any, cut: list[views.Views], asked: list[list[int]], tokens: int
) -> list[list[int]]:
    blocks = sum(blocks_for(len(prompt) + tokens) for prompt in asked)
    scheduler = Scheduler(rows=len(asked), blocks=blocks)
    batch = Batch(network, rows=len(asked), blocks=blocks)
    pages = [Sequence(at, len(prompt), tokens) for at, prompt in enumerate(asked)]
    for page in pages:
        scheduler.submit(page)
    scheduler.admit(len(pages))
    batch.begin(pages, asked, encoder.features(network, cut))
    batch.go_on(pages, tokens - 1)
    batch.look(pages, tokens).read()
    return [page.output for page in pages]
