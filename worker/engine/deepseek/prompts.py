"""What the model is asked. The wording is part of the model: a space more, and it reads worse."""

from __future__ import annotations

import re
from enum import StrEnum

from shared.options import Task
from worker.engine.deepseek.tokens import BEGIN, IMAGE, Tokenizer
from worker.engine.protocol import PageOptions


class Use(StrEnum):
    """What a page or picture is read for."""

    DOCUMENT = "document"  # markdown, with kinds and boxes of blocks
    OCR = "ocr"  # other pictures: text with boxes
    TEXT = "text"  # text alone
    FIGURE = "figure"  # a chart as a table, a formula of chemistry, a drawing
    DESCRIBE = "describe"
    LOCATE = "locate"  # where the given words stand
    QUESTION = "question"  # in the asker's own words

    @property
    def labels_are_text(self) -> bool:
        """Whether a box is labelled with the words in it, not with the kind of its block."""
        return self in {Use.OCR, Use.LOCATE}


_WORDS = {
    Use.DOCUMENT: "\n<|grounding|>Convert the document to markdown.",
    Use.OCR: "\n<|grounding|>OCR this image.",
    Use.TEXT: "\nFree OCR.",
    Use.FIGURE: "\nParse the figure.",
    Use.DESCRIBE: "\nDescribe this image in detail.",
}
_SPECIAL = re.compile(r"<image>|<\|[^<>|]{0,40}\|>|<\uff5c[^<>\uff5c]{0,40}\uff5c>")
_TASKS = {
    Task.MARKDOWN: Use.DOCUMENT,
    Task.TEXT: Use.TEXT,
    Task.FIGURE: Use.FIGURE,
    Task.DESCRIBE: Use.DESCRIBE,
    Task.LOCATE: Use.LOCATE,
    Task.CUSTOM: Use.QUESTION,
}


def use_of(options: PageOptions) -> Use:
    """What the options of a page come to."""
    return _TASKS[options.task]


def ids(tokenizer: Tokenizer, use: Use, *, images: int, words: str = "") -> list[int]:
    """The ids of a whole prompt, with `images` places for the features of the picture.

    `words` are those of the asker, for LOCATE and QUESTION: no special token can be made of them.
    """
    return [BEGIN, *[IMAGE] * images, *_after(tokenizer, use, words.strip())]


def _after(tokenizer: Tokenizer, use: Use, words: str) -> list[int]:
    foreign = tokenizer.ids_of_foreign
    match use:
        case Use.LOCATE:
            before, after = "\nLocate <|ref|>", "<|/ref|> in the image."
            return [*tokenizer.ids(before), *foreign(words), *tokenizer.ids(after)]
        case Use.QUESTION:
            return foreign(f"\n{words}")
    return tokenizer.ids(_WORDS[use])


def text(use: Use, *, words: str = "") -> str:
    """The same in letters, without the picture and the line break after it, for servers.

    They make tokens of all that looks like one, so nothing of the asker's words may.
    """
    while (cleaned := _SPECIAL.sub("", words)) != words:
        words = cleaned  # what stood around one may be another
    words = words.strip()
    match use:
        case Use.LOCATE:
            return f"Locate <|ref|>{words}<|/ref|> in the image."
        case Use.QUESTION:
            return words
    return _WORDS[use].strip()
