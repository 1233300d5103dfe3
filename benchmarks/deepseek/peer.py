"""transformers' own `generate` on the same pages, in batches of equal size.

In its favour: pages are decoded and cut before the clock starts, they are sorted by the length of
their outputs, which nobody knows beforehand, and it has no rule against repeats to obey.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from torch import Tensor

from benchmarks.deepseek.pages import Page
from benchmarks.deepseek.serving import ORDINARY
from tests.parity import reference
from worker.engine.deepseek import prompts, views
from worker.engine.deepseek.config import Version
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.tokens import PAD, Tokenizer
from worker.engine.deepseek.views import MODES, Views


class RandomOutputs(transformers.LogitsProcessor):  # type: ignore[misc]  # of an untyped library
    """Plain text at random, as our engine is made to say."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002
        """The scores with one far above the others in each row."""
        chosen = torch.randint(*ORDINARY, (len(scores), 1), device=scores.device)
        return scores.scatter_add(1, chosen, torch.full_like(chosen, 10_000, dtype=scores.dtype))


def load(folder: Path, device: torch.device, dtype: torch.dtype) -> Any:
    """The reference on a device, with the fastest way it has to compute experts."""
    model = reference.load(folder, dtype).to(device)
    model.set_experts_implementation("grouped_mm")
    return model


def read(
    model: Any, tokenizer: Tokenizer, pages: Sequence[Page], version: Version, at_once: int
) -> dict[str, Any]:
    """Have pages read, batch after batch; how fast."""
    ordered = sorted(pages, key=lambda page: page.output_tokens)
    batches = [ordered[start : start + at_once] for start in range(0, len(ordered), at_once)]
    given = [_inputs(tokenizer, batch, version) for batch in batches]
    start = time.perf_counter()
    for batch, inputs in zip(batches, given, strict=True):
        _generate(model, inputs, batch[-1].output_tokens)
    seconds = time.perf_counter() - start
    tokens = sum(page.output_tokens for page in pages)
    return {
        "pages": len(pages),
        "batch": at_once,
        "seconds": round(seconds, 2),
        "pages_per_s": round(len(pages) / seconds, 3),
        "tokens_per_s": round(tokens / seconds),
        "tokens_per_s_with_those_in_vain": round(
            sum(batch[-1].output_tokens * len(batch) for batch in batches) / seconds
        ),
    }


def _inputs(tokenizer: Tokenizer, pages: Sequence[Page], version: Version) -> dict[str, Any]:
    """All page views of a batch have one size, so the small modes are given as the base mode."""
    cut = [_cut(page, version) for page in pages]
    asked = [
        prompts.ids(tokenizer, Use.DOCUMENT, images=views.tokens(version, page.mode, page.grid))
        for page in cut
    ]
    longest = max(map(len, asked))
    ids = torch.tensor([[PAD] * (longest - len(one)) + one for one in asked])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in asked])
    return {"input_ids": ids, "attention_mask": mask, **reference.inputs_of_all(cut, version)}


def _cut(page: Page, version: Version) -> Views:
    mode = page.mode if page.mode == "gundam" else "base"
    return views.of(Image.open(io.BytesIO(page.image)), MODES[version][mode])


@torch.no_grad()
def _generate(model: Any, inputs: dict[str, Any], tokens: int) -> None:
    device, dtype = model.device, model.dtype
    on_device = {
        name: value.to(device, dtype if value.is_floating_point() else None)
        if isinstance(value, Tensor)
        else value
        for name, value in inputs.items()
    }
    found = model.generate(
        **on_device,
        do_sample=False,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        pad_token_id=PAD,
        logits_processor=transformers.LogitsProcessorList([RandomOutputs()]),
    )
    assert found.shape[1] == inputs["input_ids"].shape[1] + tokens
    found.cpu()
