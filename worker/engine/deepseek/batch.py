"""The pages that are read at this moment, each a row of numbers on the device.

All that a step needs lies there, so that steps follow each other without a word from the host:
`Look.read` alone waits for the device. A row that has ended goes on computing until the host takes it
out; it writes nothing that is read, and only into blocks of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from worker.engine.deepseek import cache, repeats, transfer
from worker.engine.deepseek.blocks import blocks_for
from worker.engine.deepseek.cache import Group, KvCache
from worker.engine.deepseek.network import Network
from worker.engine.deepseek.repeats import Rule
from worker.engine.deepseek.scheduler import Sequence
from worker.engine.deepseek.tokens import END, IMAGE

GROUP_ROWS = 64  # pages of like lengths whose keys and values are gathered at once


class Batch:
    """Rows of a fixed number, and the cache that they read from."""

    def __init__(self, network: Network, *, rows: int, blocks: int) -> None:
        """Allocates all that it will ever use."""
        self._network = network
        language, device = network.config.language, network.device
        longest = language.max_position_embeddings
        self._cache = KvCache(language, blocks, dtype=network.dtype, device=device)
        self._margin = repeats.reach()  # of nothing before the first output

        def numbers(*more: int, value: int = 0, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.full((rows, *more), value, dtype=dtype, device=device)

        self._tables = numbers(blocks_for(longest))
        self._prompts = numbers()  # tokens of it
        self._counts = numbers()  # tokens put out
        self._limits = numbers()
        self._alive = numbers(dtype=torch.bool)
        self._tokens = numbers()  # the last one, which the next step reads
        self._n, self._windows = numbers(), numbers()
        self._outputs = numbers(self._margin + longest + 1, value=-1, dtype=torch.int32)
        self._log_probs = numbers(self._margin + longest + 1, dtype=torch.float32)

    @torch.inference_mode()
    def begin(
        self,
        newcomers: Many[Sequence],
        prompts: Many[Many[int]],
        features: Many[Tensor],
        rule: Rule = repeats.PUBLISHED,
    ) -> None:
        """Read the prompts of admitted pages and put out the first token of each."""
        rows = self._take_rows(newcomers, rule)
        embedded = [self.embedded(*pair) for pair in zip(prompts, features, strict=True)]
        lengths = [len(prompt) for prompt in prompts]
        attend = cache.Prompts(self._cache, [page.blocks for page in newcomers], lengths)
        thought = self._network.think(torch.cat(embedded), attend)
        ends = self._numbers(end - 1 for end in accumulate(lengths))
        self._put_out(rows, self._network.say(thought[ends]))

    def _take_rows(self, newcomers: Many[Sequence], rule: Rule) -> Tensor:
        rows = self._rows(newcomers)
        self._prompts[rows] = self._numbers(page.prompt_tokens for page in newcomers)
        self._limits[rows] = self._numbers(page.max_output_tokens for page in newcomers)
        self._counts[rows] = 0
        self._alive[rows] = True
        self._outputs[rows] = -1
        self._n[rows], self._windows[rows] = rule.n, rule.window
        for page in newcomers:
            page.asked = 1
            self._tables[page.row, : len(page.blocks)] = self._numbers(page.blocks)
        return rows

    def _rows(self, pages: Many[Sequence]) -> Tensor:
        return self._numbers(page.row for page in pages if page.row is not None)

    def _numbers(self, numbers: Iterable[int]) -> Tensor:
        return transfer.numbers(numbers, self._network.device)

    def embedded(self, prompt: Many[int], features: Tensor) -> Tensor:
        """A prompt with its features in their places, (T, C)."""
        embedded = self._network.embed(self._numbers(prompt))
        places = self._numbers(at for at, token in enumerate(prompt) if token == IMAGE)
        embedded[places] = features.to(embedded.dtype)
        return embedded

    @torch.inference_mode()
    def go_on(self, pages: Many[Sequence], steps: int) -> None:
        """Put out `steps` more tokens of each page, fewer of those that end before."""
        for page in pages:
            page.asked = min(page.asked + steps, page.max_output_tokens)
        ordered = sorted(pages, key=_reach)
        groups = [Group(len(group), blocks_for(_reach(group[-1]))) for group in _groups(ordered)]
        rows = self._rows(ordered)
        attend = cache.Rows(self._cache, self._tables[rows, : groups[-1].blocks], groups)
        for _ in range(steps):
            self._step(rows, attend)

    def _step(self, rows: Tensor, attend: cache.Rows) -> None:
        attend.at(self._prompts[rows] + self._counts[rows] - 1)
        thought = self._network.think(self._network.embed(self._tokens[rows]), attend)
        self._put_out(rows, self._network.say(thought))

    def _put_out(self, rows: Tensor, logits: Tensor) -> None:
        counts, alive = self._counts[rows], self._alive[rows]
        total = logits.logsumexp(-1)
        before = torch.arange(self._margin, device=rows.device)
        recent = self._outputs[rows].gather(1, counts[:, None] + before)
        repeats.forbid(logits, recent, counts, self._n[rows], self._windows[rows])
        best, tokens = logits.max(-1)
        self._outputs[rows, self._margin + counts] = tokens.int()
        self._log_probs[rows, self._margin + counts] = best - total
        counts = counts + alive
        self._counts[rows] = counts
        self._tokens[rows] = tokens
        self._alive[rows] = alive & (tokens != END) & (counts < self._limits[rows])

    @torch.inference_mode()
    def look(self, pages: Many[Sequence], tokens: int) -> Look:
        """The last tokens of the pages, as many as were put out since they were last looked at.

        They are fetched while the device goes on with what it is told meanwhile.
        """
        rows = self._rows(pages)
        counts = self._counts[rows]
        places = self._margin + counts[:, None] - torch.arange(tokens, 0, -1, device=rows.device)
        found = (
            counts,
            self._alive[rows],
            self._outputs[rows].gather(1, places),
            self._log_probs[rows].gather(1, places),
        )
        counts, alive, outputs, log_probs = (x.to("cpu", non_blocking=True) for x in found)
        fetched = torch.cuda.Event() if rows.is_cuda else None
        if fetched:
            fetched.record()
        return Look(list(pages), counts, alive, outputs, log_probs, fetched)


@dataclass(frozen=True)
class Look:
    """What pages had put out at one moment."""

    pages: list[Sequence]
    counts: Tensor
    alive: Tensor
    outputs: Tensor  # the last tokens of each
    log_probs: Tensor
    fetched: torch.cuda.Event | None

    def read(self) -> list[Sequence]:
        """Note in the pages what is new of them; those that have ended. Waits for the device.

        Pages that were taken out meanwhile are left alone.
        """
        if self.fetched:
            self.fetched.synchronize()
        ended = []
        news = zip(
            self.pages,
            self.counts.tolist(),
            self.alive.tolist(),
            self.outputs.tolist(),
            self.log_probs.tolist(),
            strict=True,
        )
        for page, count, lives, tokens, probs in news:
            if page.row is None:
                continue
            first = len(tokens) - (count - len(page.output))
            page.output += tokens[first:]
            page.log_probs += probs[first:]
            if not lives:
                ended.append(page)
        return ended


def _reach(page: Sequence) -> int:
    """How far the page may read, also where it has ended and only marks time."""
    return page.prompt_tokens + page.asked


def _groups(ordered: list[Sequence]) -> Iterator[list[Sequence]]:
    for start in range(0, len(ordered), GROUP_ROWS):
        yield ordered[start : start + GROUP_ROWS]
