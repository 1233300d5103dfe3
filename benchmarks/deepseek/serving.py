"""Our engine at work: many pages handed to it, and when each was done."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.deepseek.pages import Page
from shared.options import Task
from worker.engine.deepseek.engine import DeepSeekEngine
from worker.engine.deepseek.language import MixtureOfExperts
from worker.engine.deepseek.network import Network
from worker.engine.protocol import Delta, Done, Failed, PageOptions, Read, Working

SETTLED_STEPS = 60  # after which all rows are taken, if there are pages for them
MANY_ROWS = 64  # which use all experts, where they use them evenly
ORDINARY = (1000, 120_000)  # ids that are plain text


@dataclass
class Run:
    """One pass over a set of pages. Times are seconds from its start."""

    output_tokens: int = 0
    failed: int = 0
    in_flight: list[int] = field(default_factory=list)  # pages that were begun, at each step
    in_step: list[int] = field(default_factory=list)  # those of them that a step took further
    began: dict[int, float] = field(default_factory=dict)
    first_text: dict[int, float] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """From the first page's coming to the last one's end."""
        return max(self.ended.values())

    def facts(self) -> dict[str, Any]:
        """The figures of this run."""
        whole = sorted(self.ended[one] - self.began[one] for one in self.ended)
        first = sorted(self.first_text[one] - self.began[one] for one in self.first_text)
        return {
            "pages": len(self.ended),
            "failed": self.failed,
            "most_in_flight": max(self.in_flight),
            "median_in_flight": round(statistics.median(self.in_flight)),
            "most_in_one_step": max(self.in_step),
            "median_in_one_step": round(statistics.median(self.in_step)),
            "seconds": round(self.seconds, 2),
            "pages_per_s": round(len(self.ended) / self.seconds, 2),
            "tokens_per_s": round(self.output_tokens / self.seconds),
            "page_p50_s": round(statistics.median(whole), 3),
            "page_p99_s": round(whole[int(0.99 * (len(whole) - 1))], 3),
            "first_text_p50_s": round(statistics.median(first), 3) if first else None,
        }


def read(
    engine: DeepSeekEngine, pages: Sequence[Page], at_once: int, *, stream: bool = False
) -> Run:
    """Have pages read, so many in the engine's hands at any time."""
    run, waiting, start = Run(), list(enumerate(pages))[::-1], time.perf_counter()
    held: set[int] = set()
    begun: set[int] = set()  # of those: touched at least once, be it to prepare them
    while waiting or held:
        while waiting and len(held) < at_once:
            number, page = waiting.pop()
            held.add(number)
            run.began[number] = time.perf_counter() - start
            engine.submit(_request(number, page))
            if stream:
                engine.tell(number)
        in_flight = in_step = 0
        for event in engine.step():
            now = time.perf_counter() - start
            if isinstance(event, Working):
                begun.update(event.ids)
                in_flight, in_step = max(in_flight, len(begun)), max(in_step, len(event.ids))
            elif isinstance(event, Delta):
                run.first_text.setdefault(event.id, now)
            elif isinstance(event, Done | Failed):
                held.discard(event.id)
                begun.discard(event.id)
                run.ended[event.id] = now
                run.failed += isinstance(event, Failed)
                run.output_tokens += pages[event.id].output_tokens
        run.in_flight.append(in_flight)
        run.in_step.append(in_step)
    return run


def _request(number: int, page: Page) -> Read:
    options = PageOptions(task=Task.MARKDOWN, mode=page.mode, max_output_tokens=page.output_tokens)
    return Read(number, "", options, image=page.image)


def profile(engine: DeepSeekEngine, pages: Sequence[Page]) -> str:
    """What a step is made of when all rows are taken: where its time goes, on device and host."""
    for number, page in enumerate(pages):
        engine.submit(_request(number, page))
    done = 0
    while engine.rows_in_use < min(len(pages), engine.slots) // 2 or done < SETTLED_STEPS:
        done += 1
        list(engine.step())
    with torch.profiler.profile() as profiler:
        for _ in range(2):
            list(engine.step())
    for number in range(len(pages)):
        engine.cancel(number)
    by = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    return str(profiler.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=70))


@contextmanager
def random_outputs(network: Network) -> Iterator[None]:
    """Let the network say plain text at random, after all has been computed as ever.

    What random weights say of themselves collapses: rows that all say the same use the same few
    experts, and are read faster than any text. Nor do they ever end, so the end is left out.
    """
    say = network.say

    def said(x: Tensor) -> Tensor:
        logits = say(x)
        chosen = torch.randint(*ORDINARY, (len(logits), 1), device=logits.device)
        return logits.scatter_add_(1, chosen, torch.full_like(chosen, 10_000, dtype=torch.float32))

    network.say = said  # type: ignore[method-assign]
    try:
        yield
    finally:
        network.say = say  # type: ignore[method-assign]


@contextmanager
def counting_experts(network: Network, found: list[int]) -> Iterator[None]:
    """Note how many experts each pass of many rows uses in each layer. Slow: time nothing here."""

    def note(layer: MixtureOfExperts, given: tuple[Tensor, ...]) -> None:
        if len(given[0]) < MANY_ROWS:
            return
        scores = torch.nn.functional.linear(given[0].float(), layer.gate.weight.float())
        found.append(len(scores.topk(layer.used).indices.unique()))

    hooks = [
        layer.register_forward_pre_hook(note)
        for layer in network.modules()
        if isinstance(layer, MixtureOfExperts)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
