"""What the server says of a page, chunk by chunk: checked, bounded, put together.

Each chunk is a JSON object, as OpenAI's chat completions have it; so is an answer that comes whole.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.document import FinishReason
from worker.engine.deepseek.loops import LoopWatch
from worker.engine.deepseek.tokens import Text
from worker.engine.remote.errors import Broken, Nonsense, TooLong

MAX_CHARACTERS = 1_000_000  # a hundred times the longest page
MAX_TOKENS = 100_000
END = "<\uff5cend\u2581of\u2581sentence\uff5c>"  # some servers show it

_REASONS = {"stop": FinishReason.STOP}  # any other is a text that was cut off
_FAILURES = {"abort", "error"}


class _Value(BaseModel):
    model_config = ConfigDict(strict=True)


class _Token(_Value):
    token: str
    logprob: float = Field(allow_inf_nan=False)
    bytes: list[int] | None = None  # of what is no letter by itself


class _LogProbs(_Value):
    content: list[_Token] | None = None


class _Words(_Value):
    content: str | None = None


class _Choice(_Value):
    delta: _Words | None = None
    message: _Words | None = None  # where the answer comes whole
    logprobs: _LogProbs | None = None
    finish_reason: str | None = None


class _Usage(_Value):
    prompt_tokens: int = Field(ge=0, le=2**31 - 1)
    completion_tokens: int = Field(ge=0, le=2**31 - 1)


class _Chunk(_Value):
    choices: list[_Choice]
    usage: _Usage | None = None


class Answer:
    """An answer as it grows."""

    def __init__(self) -> None:
        self.looped = False
        """Whether it goes round for certain; then no more of it is wanted."""
        self._parts: list[str] = []
        self._characters = 0
        self._tokens: list[bytes] = []
        self._log_probs: list[float] = []
        self._reason: str | None = None
        self._usage: _Usage | None = None
        self._ids: dict[bytes, int] = {}
        self._loops = LoopWatch()

    def take(self, data: bytes) -> str:
        """Add a chunk; the text that it brings. Raises Nonsense, TooLong or Broken."""
        try:
            chunk = _Chunk.model_validate_json(data)
        except (ValidationError, RecursionError) as error:
            raise Nonsense("The server's answer is no chat completion.") from error
        self._usage = chunk.usage or self._usage
        return "".join(map(self._choice, chunk.choices[:1]))

    def _choice(self, choice: _Choice) -> str:
        if choice.finish_reason in _FAILURES:
            raise Broken("The server gave the page up.")
        self._reason = choice.finish_reason or self._reason
        words = choice.delta or choice.message
        text = (words.content if words else None) or ""
        self._parts.append(text)
        self._characters += len(text)
        self._see((choice.logprobs.content if choice.logprobs else None) or [])
        if self._characters > MAX_CHARACTERS or len(self._tokens) > MAX_TOKENS:
            raise TooLong("The server's text does not end.")
        return text

    def _see(self, tokens: Sequence[_Token]) -> None:
        said = [_bytes_of(token) for token in tokens]
        self._tokens += said
        self._log_probs += [min(0.0, token.logprob) for token in tokens]
        self.looped |= self._loops.see(self._ids.setdefault(one, len(self._ids)) for one in said)

    @property
    def is_whole(self) -> bool:
        """Whether the server has said why it ended."""
        return self._reason is not None

    @property
    def finish_reason(self) -> FinishReason:
        """Why it ended. Of a loop only the first turn is kept."""
        if self.looped:
            return FinishReason.REPETITION
        return _REASONS.get(self._reason or "", FinishReason.LENGTH)

    @property
    def prompt_tokens(self) -> int | None:
        """What the server counts: the picture's, and a dozen of words."""
        return self._usage.prompt_tokens if self._usage else None

    @property
    def output_tokens(self) -> int | None:
        """What the server counts, or the tokens that it told; None where it did neither."""
        return self._usage.completion_tokens if self._usage else len(self._tokens) or None

    def text(self) -> Text:
        """What was said; `starts` are those of the tokens, none where they are not the text."""
        text = "".join(self._parts).removesuffix(END)
        spoken, starts = _spoken(self._tokens)
        if not spoken.startswith(text):
            return Text(text, [])
        if self.looped and self._loops.repeated:
            text = text[: starts[-self._loops.repeated]]
        return Text(text, [start for start in starts if start < len(text)])

    def log_probs(self, text: Text) -> list[float]:
        """Of the tokens of `text`; of all, where it is not known which are where."""
        return self._log_probs[: len(text.starts) or None]


def _bytes_of(token: _Token) -> bytes:
    if token.bytes is not None and all(0 <= byte <= 255 for byte in token.bytes):  # noqa: PLR2004
        return bytes(token.bytes)
    return token.token.encode(errors="replace")


def _spoken(tokens: Sequence[bytes]) -> tuple[str, list[int]]:
    """What the tokens say together, and where in it each begins."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    parts, starts, length = [], [], 0
    for token in tokens:
        starts.append(length)
        parts.append(decoder.decode(token))
        length += len(parts[-1])
    return "".join(parts), starts
