"""Text to token ids and back.

Going back works on bytes, a token at a time, so that text can stream and every token keeps its
place in it: a character may be spread over several tokens.
"""

from __future__ import annotations

import codecs
import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.engine.deepseek.errors import CheckpointMissing, CheckpointWrong

BEGIN, END, PAD = 0, 1, 2
IMAGE = 128815
REF, END_REF, DET, END_DET = 128816, 128817, 128818, 128819
GROUNDING = 128820
CELL, END_CELL, ROW, END_ROW = 128821, 128822, 128823, 128824

_KNOWN = {
    IMAGE: "<image>",
    REF: "<|ref|>",
    END_REF: "<|/ref|>",
    DET: "<|det|>",
    END_DET: "<|/det|>",
    GROUNDING: "<|grounding|>",
    CELL: "<td>",
    END_CELL: "</td>",
    ROW: "<tr>",
    END_ROW: "</tr>",
}
_SPOKEN = frozenset(_KNOWN) - {IMAGE, GROUNDING}  # special tokens that are part of an output
_FIRST_ADDED = 128_000  # what follows is no byte-level piece


@dataclass(frozen=True)
class Text:
    """Decoded tokens: `starts[i]` is where in `text` the i-th token begins."""

    text: str
    starts: list[int]


class Tokenizer:
    """The tokenizer of both models."""

    def __init__(self, path: Path) -> None:
        """From `tokenizer.json`. Raises CheckpointMissing, or CheckpointWrong for another one."""
        if not path.is_file():
            raise CheckpointMissing(f"{path} is not there")
        from tokenizers import Tokenizer as Rust  # noqa: PLC0415 - `remote` has text, and no tokens

        try:
            self._rust = Rust.from_file(str(path))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointWrong(f"{path} is no tokenizer: {error}") from error
        for token, text in _KNOWN.items():
            if self._rust.token_to_id(text) != token:
                raise CheckpointWrong(f"{path}: {text} is not token {token}")

    def ids(self, text: str) -> list[int]:
        """Of our own words, in which `<|ref|>` and the like are tokens."""
        self._rust.encode_special_tokens = False
        return list(self._rust.encode(text, add_special_tokens=False).ids)

    def ids_of_foreign(self, text: str) -> list[int]:
        """Of somebody else's words, in which the model's special tokens are plain letters."""
        self._rust.encode_special_tokens = True
        return list(self._rust.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> Text:
        """The text of an output, its special tokens dropped but for those that structure it."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        parts, starts, length = [], [], 0
        for token in ids:
            starts.append(length)
            parts.append(decoder.decode(self.bytes_of(token)))
            length += len(parts[-1])
        parts.append(decoder.decode(b"", final=True))
        return Text("".join(parts), starts)

    def bytes_of_all(self, ids: Iterable[int]) -> bytes:
        """What the tokens say together."""
        return b"".join(map(self.bytes_of, ids))

    @functools.lru_cache(maxsize=200_000)  # noqa: B019 - one tokenizer a process
    def bytes_of(self, token: int) -> bytes:
        """What one token says: nothing, where it is special and no part of an output."""
        piece = self._rust.id_to_token(token)
        if piece is None or token <= PAD:
            return b""
        if token < _FIRST_ADDED:
            return bytes(_byte_of_letter()[letter] for letter in piece)
        return piece.encode() if token in _SPOKEN else b""


@functools.cache
def _byte_of_letter() -> dict[str, int]:
    """How byte-level vocabularies write each byte as a printable letter."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(256 + place): byte for place, byte in enumerate(others)}
