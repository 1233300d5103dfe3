"""Who owns which block of the cache. Plain numbers; knows no torch."""

from __future__ import annotations

BLOCK_TOKENS = 64


def blocks_for(tokens: int) -> int:
    """How many blocks so many tokens take."""
    return -(-tokens // BLOCK_TOKENS)


class BlockPool:
    """The blocks that are free.

    A page gets all the blocks that it can ever need when it is admitted, so none runs out halfway,
    and nobody has to be thrown out for another.
    """

    def __init__(self, count: int) -> None:
        """All of the blocks 0 to `count`, exclusive, are free."""
        self.count = count
        self._free = list(range(count))[::-1]

    @property
    def free(self) -> int:
        """How many there are to be had."""
        return len(self._free)

    def take(self, tokens: int) -> tuple[int, ...] | None:
        """The blocks for so many tokens; None where there are not enough of them now."""
        wanted = blocks_for(tokens)
        if wanted > len(self._free):
            return None
        return tuple(self._free.pop() for _ in range(wanted))

    def give_back(self, blocks: tuple[int, ...]) -> None:
        """Free what `take` gave."""
        assert not set(blocks) & set(self._free), "a block is given back twice"
        self._free += blocks
