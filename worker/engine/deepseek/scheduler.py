"""Which pages are read, and which wait. Plain numbers; knows no torch.

First come, first admitted: a page waits until a row and its blocks are free, and those behind it
wait with it, so that a long page is not passed over for ever. Once admitted it runs to its end.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from worker.engine.deepseek.blocks import BLOCK_TOKENS, BlockPool


@dataclass(eq=False)
class Sequence:
    """A page as a row of tokens: its prompt, and what was put out of it so far."""

    id: int
    prompt_tokens: int
    max_output_tokens: int
    blocks: tuple[int, ...] = ()  # while it is admitted
    row: int | None = None
    asked: int = 0  # tokens that the device was told to put out; `output` has them later
    output: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)  # of each token of the output

    @property
    def reserved_tokens(self) -> int:
        """How many tokens it may come to."""
        return self.prompt_tokens + self.max_output_tokens


class Scheduler:
    """Rows of the batch and blocks of the cache, handed to one page after the other."""

    def __init__(self, *, rows: int, blocks: int) -> None:
        self.rows = rows
        self.pool = BlockPool(blocks)
        self._free_rows = list(range(rows))[::-1]
        self._waiting: deque[Sequence] = deque()
        self._running: dict[int, Sequence] = {}

    @property
    def running(self) -> list[Sequence]:
        """Those that were admitted, in that order."""
        return list(self._running.values())

    @property
    def waiting(self) -> int:
        """How many are not admitted yet."""
        return len(self._waiting)

    @property
    def free_rows(self) -> int:
        """How many more could be admitted, if there are blocks for them."""
        return len(self._free_rows)

    @property
    def most_tokens(self) -> int:
        """What a page may reserve at most: the whole cache."""
        return self.pool.count * BLOCK_TOKENS

    def submit(self, sequence: Sequence) -> None:
        """Let it wait for its turn."""
        assert sequence.reserved_tokens <= self.most_tokens, "it would wait for ever"
        self._waiting.append(sequence)

    def admit(self, at_most: int) -> list[Sequence]:
        """The next ones, with row and blocks, as many as there is room for."""
        admitted: list[Sequence] = []
        while self._waiting and self._free_rows and len(admitted) < at_most:
            blocks = self.pool.take(self._waiting[0].reserved_tokens)
            if blocks is None:
                break
            sequence = self._waiting.popleft()
            sequence.blocks, sequence.row = blocks, self._free_rows.pop()
            self._running[sequence.id] = sequence
            admitted.append(sequence)
        return admitted

    def end(self, sequence_id: int) -> None:
        """Take a page out, wherever it is, and free what it has. Nothing, where it is not here."""
        sequence = self._running.pop(sequence_id, None)
        if sequence is None:
            kept = [waiting for waiting in self._waiting if waiting.id != sequence_id]
            self._waiting = deque(kept)
            return
        assert sequence.row is not None
        self.pool.give_back(sequence.blocks)
        self._free_rows.append(sequence.row)
        sequence.blocks, sequence.row = (), None
