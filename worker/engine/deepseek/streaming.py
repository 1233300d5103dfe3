"""An output as it grows, for whoever listens: its text, without the model's markup."""

from __future__ import annotations

from collections.abc import Sequence

from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.tokens import DET, END_DET, END_REF, REF, Tokenizer


class TextStream:
    """The text of one page. Headers of blocks are left out, labels kept where they are text."""

    def __init__(self, tokenizer: Tokenizer, use: Use) -> None:
        self._tokenizer = tokenizer
        self._hides_from = DET if use.labels_are_text else REF
        self._is_hiding = False
        self._seen = 0  # tokens

    def more(self, output: Sequence[int]) -> bytes:
        """What an output has more than when it was last given, in UTF-8.

        A letter may be cut at the end.
        """
        fresh, self._seen = output[self._seen :], len(output)
        return self._tokenizer.bytes_of_all(token for token in fresh if self._shows(token))

    def _shows(self, token: int) -> bool:
        if token == self._hides_from:
            self._is_hiding = True
        shows = not self._is_hiding and token not in {REF, END_REF, DET, END_DET}
        if token == END_DET:
            self._is_hiding = False
        return shows
