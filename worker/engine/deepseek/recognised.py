"""What the model put out of a page, as a Recognition."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shared.document import Block, BlockKind, FinishReason, Recognition, Usage
from worker.engine.deepseek import grounding
from worker.engine.deepseek.grounding import Region
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.tokens import Text, Tokenizer

_KINDS = {kind.value: kind for kind in BlockKind} | {"formula": BlockKind.EQUATION}
_CENTRED = re.compile(r"</?center>")
_MANY_NEWLINES = re.compile(r"\n{3,}")
_HEADING = re.compile(r"^#{1,6}[ \t]+", re.MULTILINE)
_CELL_END = re.compile(r"</t[dh]>")
_ROW_END = re.compile(r"\t?</tr>")
_TABLE_TAG = re.compile(r"</?(?:table|thead|tbody|tr|td|th|caption|b|i|sup|sub)(?: [^<>]{0,200})?>")


@dataclass(frozen=True)
class Output:
    """What was put out of one page, and how it came about."""

    ids: Sequence[int]
    log_probs: Sequence[float]  # of each id
    finish_reason: FinishReason
    use: Use
    size: tuple[int, int]  # width and height of the page in pixels
    mode: str | None  # that the page was cut by
    vision_tokens: int
    seconds: float


@dataclass(frozen=True)
class Page:
    """What is known of a page beside what was put out of it."""

    use: Use
    size: tuple[int, int]  # width and height in pixels
    mode: str | None  # None: it is not known how closely it was looked at
    finish_reason: FinishReason
    usage: Usage


def recognition(output: Output, tokenizer: Tokenizer, *, engine: str, model: str) -> Recognition:
    """The page as text, markdown and blocks."""
    decoded = tokenizer.decode(output.ids)
    usage = Usage(
        vision_tokens=output.vision_tokens,
        output_tokens=len(output.ids),
        compression_ratio=round(len(output.ids) / output.vision_tokens, 3),
        engine_seconds=round(output.seconds, 3),
    )
    page = Page(output.use, output.size, output.mode, output.finish_reason, usage)
    return said(decoded, output.log_probs, page, engine=engine, model=model)


def said(
    decoded: Text, log_probs: Sequence[float], page: Page, *, engine: str, model: str
) -> Recognition:
    """The page as text, markdown and blocks, whoever made text of tokens.

    A figure stands in the markdown as `![](figures/1)`, counted from 1 on each page; its place on
    the page is the box of the block. Tables are HTML, formulas LaTeX, as the model gave them.
    """
    regions = list(grounding.regions(decoded.text, *page.size))
    sure = [_confidence(log_probs, decoded.starts, region.span) for region in regions]
    blocks = [
        block
        for region, confidence in zip(regions, sure, strict=True)
        for block in _blocks(region, page.use, confidence)
    ]
    return Recognition(
        engine=engine,
        model=model,
        mode=page.mode,
        markdown=_joined(_marked_down(blocks)),
        text=_joined(plain(block.text) for block in blocks),
        blocks=blocks,
        confidence=mean_probability(log_probs),
        confidence_min=min((value for value in sure if value is not None), default=None),
        finish_reason=page.finish_reason,
        usage=page.usage,
    )


def mean_probability(log_probs: Sequence[float]) -> float | None:
    """The geometric mean of the probabilities that the tokens had; None where there is none."""
    if not log_probs:
        return None
    return min(1.0, math.exp(math.fsum(log_probs) / len(log_probs)))


def _confidence(
    log_probs: Sequence[float], starts: Sequence[int], span: tuple[int, int]
) -> float | None:
    """Of the tokens that begin within the span."""
    return mean_probability(log_probs[bisect_left(starts, span[0]) : bisect_left(starts, span[1])])


def _blocks(region: Region, use: Use, confidence: float | None) -> Iterator[Block]:
    """One for each box; where a region has several, the text stands in the first."""
    if use.labels_are_text and region.label is not None:
        kind, text = BlockKind.LINE, _joined([region.label, region.text])
    else:
        kind, text = _kind(region.label), tidy(region.text)
    for number, box in enumerate(region.boxes or [None]):
        yield Block(kind=kind, text="" if number else text, box=box, confidence=confidence)


def _kind(label: str | None) -> BlockKind:
    return BlockKind.TEXT if label is None else _KINDS.get(label, BlockKind.OTHER)


def _marked_down(blocks: Sequence[Block]) -> Iterator[str]:
    figures = 0
    for block in blocks:
        if block.kind is BlockKind.IMAGE:
            figures += 1
            yield f"![](figures/{figures})"
        yield block.text


def tidy(text: str) -> str:
    """The text of a block without the model's habits."""
    text = _CENTRED.sub("", text).replace(r"\coloneqq", ":=").replace(r"\eqqcolon", "=:")
    return _MANY_NEWLINES.sub("\n\n", text).strip()


def plain(text: str) -> str:
    """A block's text without its headings' marks; cells are parted by tabs, rows by newlines."""
    text = _ROW_END.sub("\n", _CELL_END.sub("\t", _HEADING.sub("", text)))
    return _TABLE_TAG.sub("", text).strip()


def _joined(parts: Iterator[str] | Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part)
