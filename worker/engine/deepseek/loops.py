"""Tells when an output goes round and round. Plain numbers; knows no torch.

The rule in `repeats.py` breaks short loops. Longer ones get past it, and so do empty cells without
end, which it spares. Only exact loops are told; one that counts as it goes runs into its limit.
"""

from __future__ import annotations

from collections.abc import Iterable

SIGHT_TOKENS = 8  # that must come again before a loop is thought of
LOOP_TOKENS = 384  # repeated before it is certain: a form may well have a dozen empty rows
LOOP_TURNS = 3


class LoopWatch:
    """Sees the tokens of one output, in constant time each."""

    def __init__(self) -> None:
        self._ids: list[int] = []
        self._seen: dict[tuple[int, ...], int] = {}  # the last tokens -> where they ended
        self._period = 0  # 0: no loop is thought of
        self.repeated = 0
        """How many of the last tokens only repeat what stands a period before them."""

    def see(self, ids: Iterable[int]) -> bool:
        """Whether the output, with `ids` now behind it, is a loop for certain."""
        for token in ids:
            self._see(token)
        return self.repeated >= max(LOOP_TOKENS, LOOP_TURNS * self._period)

    def _see(self, token: int) -> None:
        at = len(self._ids)
        self._ids.append(token)
        key = tuple(self._ids[-SIGHT_TOKENS:])
        before, self._seen[key] = self._seen.get(key), at
        if self._period and self._ids[at - self._period] == token:
            self.repeated += 1
        else:
            is_sighted = before is not None and len(key) == SIGHT_TOKENS
            self._period = at - before if is_sighted and before is not None else 0
            self.repeated = SIGHT_TOKENS if self._period else 0
