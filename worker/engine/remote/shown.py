"""The text of an answer as it grows, for whoever listens: without the model's markup."""

from __future__ import annotations

import re

from worker.engine.deepseek.prompts import Use

_MARKER = re.compile(r"<\|/?(?:ref|det)\|>")
_LONGEST = len("<|/ref|>")
_BEGUN = re.compile(r"<(?:\|(?:/?[a-z]{0,3}\|?)?)?\Z")


class Shown:
    """Leaves out headers of blocks, and keeps labels where they are text."""

    def __init__(self, use: Use) -> None:
        self._hides_from = "<|det|>" if use.labels_are_text else "<|ref|>"
        self._is_hiding = False
        self._rest = ""  # may be the beginning of a marker
        self._length = 0
        self._told = 0  # of what was shown; a second try says the same again

    def again(self) -> None:
        """Begin anew: what was shown is not shown twice."""
        self._is_hiding, self._rest, self._length = False, "", 0

    def more(self, text: str) -> str:
        """What is to be shown of the next piece."""
        shown = "".join(self._pieces(self._rest + text))
        self._length += len(shown)
        fresh = min(len(shown), max(0, self._length - self._told))
        self._told = max(self._told, self._length)
        return shown[len(shown) - fresh :]

    def _pieces(self, text: str) -> list[str]:
        begun = _BEGUN.search(text, max(0, len(text) - _LONGEST))
        end = begun.start() if begun else len(text)
        self._rest, text = text[end:], text[:end]
        pieces, start = [], 0
        for marker in _MARKER.finditer(text):
            pieces.append("" if self._is_hiding else text[start : marker.start()])
            start = marker.end()
            if marker[0] == self._hides_from:
                self._is_hiding = True
            elif marker[0] == "<|/det|>":
                self._is_hiding = False
        pieces.append("" if self._is_hiding else text[start:])
        return pieces
