"""References to the figures of a page, as a reader follows them.

An engine says `![](figures/1)` for the first picture of a page. What is kept says
`![](pages/3/figures/1)`, below the job's own address, so that it means the same in a page and in a
document; and nothing refers to a figure that is not there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from shared.document import Block, BlockKind, Recognition

_REFERENCE = re.compile(r"!\[\]\(figures/([0-9]{1,9})\)")
_MANY_NEWLINES = re.compile(r"\n{3,}")


def images(recognition: Recognition) -> Iterator[tuple[int, Block]]:
    """The blocks that are pictures, numbered from 1 in reading order."""
    return enumerate((block for block in recognition.blocks if _is_image(block)), 1)


def are_in(recognition: Recognition) -> bool:
    """Whether there may be something to refer to, or to correct."""
    return any(_is_image(block) or block.figure for block in recognition.blocks)


def only(recognition: Recognition, page_no: int, numbers: Collection[int]) -> Recognition:
    """What an engine read of a page, with references to these figures and to no others."""
    number_of = {id(block): number for number, block in images(recognition) if number in numbers}
    blocks = [
        block.model_copy(update={"figure": number_of.get(id(block))})
        for block in recognition.blocks
    ]

    def refer(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"![](pages/{page_no}/figures/{number})" if number in numbers else ""

    markdown = _MANY_NEWLINES.sub("\n\n", _REFERENCE.sub(refer, recognition.markdown)).strip()
    return recognition.model_copy(update={"blocks": blocks, "markdown": markdown})


def _is_image(block: Block) -> bool:
    return block.kind is BlockKind.IMAGE
