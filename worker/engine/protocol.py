"""The words between an engine's host and the child process that it lives in.

One socket pair; each message is a frame: two big-endian lengths of four bytes, a JSON header, then
raw bytes (a page's image, a recognition, a piece of text; else empty). JSON and bytes, because a
pickle from a process that reads hostile pixels would be a way out of it.

    host -> child   Read, Tell, Cancel               pages join and leave at any time
    child -> host   Ready                            once, after the golden page
                    Working, Tick                    what is touched, what moved on
                    Delta, Done, Failed, Cancelled   of one page

Requests have ids of the host's choosing, unique in a child's life. An answer repeats the id and the
checksum of the image, so that an answer for another page can be told. Every Read ends in exactly
one of Done, Failed and Cancelled, and nothing is said of the page after that.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from shared.document import Recognition
from shared.options import Task

MAX_HEADER_BYTES = 1024**2
MAX_PAYLOAD_BYTES = 128 * 1024**2  # a noisy page of the largest size, as PNG

_LENGTHS = struct.Struct(">II")
_STRICT = ConfigDict(extra="forbid")


class ProtocolError(Exception):
    """What came through the socket is no message; nothing after it can be trusted either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """How one page is to be read. An engine leaves out of account what it has no use for."""

    __pydantic_config__ = _STRICT

    task: Task
    mode: str | None = None  # a shared.options.Mode; None: the engine's usual one
    prompt: str | None = None  # the asker's own words, for LOCATE and CUSTOM
    languages: tuple[str, ...] = ()
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Read this page."""

    __pydantic_config__ = _STRICT

    id: int
    checksum: str  # SHA-256 of the image, in hex
    options: PageOptions
    image: bytes = b""  # JPEG or PNG
    kind: Literal["read"] = "read"


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the text of this page from now on, as Deltas, beginning with what there is of it."""

    __pydantic_config__ = _STRICT

    id: int
    kind: Literal["tell"] = "tell"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop this page. The answer is Cancelled, also for a page that is not there any more."""

    __pydantic_config__ = _STRICT

    id: int
    kind: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class Ready:
    """The golden page was read right; pages may come."""

    __pydantic_config__ = _STRICT

    engine: str
    model: str
    slots: int  # how many pages the engine may hold at once
    device: dict[str, str]
    kind: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class Working:
    """These pages and no others are about to be touched: the suspects, should the child die now."""

    __pydantic_config__ = _STRICT

    ids: tuple[int, ...]
    kind: Literal["working"] = "working"


@dataclass(frozen=True, slots=True)
class Tick:
    """The engine has done `steps` steps in its life; those since the last tick touched `ids`."""

    __pydantic_config__ = _STRICT

    steps: int
    ids: tuple[int, ...]
    kind: Literal["tick"] = "tick"


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of a page that was to be told, in the order in which it is read."""

    __pydantic_config__ = _STRICT

    id: int
    text: bytes = b""  # UTF-8, as far as the engine keeps to it
    kind: Literal["delta"] = "delta"


@dataclass(frozen=True, slots=True)
class Done:
    """The page was read."""

    __pydantic_config__ = _STRICT

    id: int
    checksum: str
    recognition: bytes = b""  # a Recognition as JSON, not checked yet
    kind: Literal["done"] = "done"

    @classmethod
    def of(cls, request: Read, recognition: Recognition) -> Done:
        """The answer to `request`."""
        return cls(request.id, request.checksum, recognition.model_dump_json().encode())


@dataclass(frozen=True, slots=True)
class Failed:
    """The page cannot be read; `code` is that of a class in shared/errors.py."""

    __pydantic_config__ = _STRICT

    id: int
    code: str
    detail: str
    kind: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The page is not held any more."""

    __pydantic_config__ = _STRICT

    id: int
    kind: Literal["cancelled"] = "cancelled"


FromHost = Read | Tell | Cancel
FromChild = Ready | Working | Tick | Delta | Done | Failed | Cancelled
Event = Working | Delta | Done | Failed  # what an engine itself says

_FROM_HOST: TypeAdapter[FromHost] = TypeAdapter(Annotated[FromHost, Field(discriminator="kind")])
_FROM_CHILD: TypeAdapter[FromChild] = TypeAdapter(Annotated[FromChild, Field(discriminator="kind")])
_ANY: TypeAdapter[FromHost | FromChild] = TypeAdapter(FromHost | FromChild)

# Raw bytes travel behind the header, not in it.
_PAYLOADS: dict[type, str] = {Read: "image", Delta: "text", Done: "recognition"}


def encode(message: FromHost | FromChild) -> tuple[bytes, bytes]:
    """The frame of `message`: lengths and header, and the payload, which is not copied.

    Raises ProtocolError where one of them is longer than a frame may hold.
    """
    field = _PAYLOADS.get(type(message))
    payload: bytes = getattr(message, field) if field else b""
    header = _ANY.dump_json(message, exclude={field} if field else None)
    _check_lengths(len(header), len(payload))
    return _LENGTHS.pack(len(header), len(payload)) + header, payload


def _check_lengths(header: int, payload: int) -> None:
    if not 0 < header <= MAX_HEADER_BYTES or payload > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"a frame of {header} and {payload} bytes")


T = TypeVar("T")


class Decoder(Generic[T]):
    """Makes messages of the bytes of a socket, however they were cut on the way."""

    def __init__(self, adapter: TypeAdapter[T]) -> None:
        self._adapter = adapter
        self._buffer = bytearray()

    @property
    def is_midway(self) -> bool:
        """Whether the rest of a frame is still to come."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> Iterator[T]:
        """The messages that are complete with `data`. Raises ProtocolError; then read no more."""
        self._buffer += data
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> T | None:
        if len(self._buffer) < _LENGTHS.size:
            return None
        header, payload = _LENGTHS.unpack_from(self._buffer)
        _check_lengths(header, payload)
        start, end = _LENGTHS.size + header, _LENGTHS.size + header + payload
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            message = self._parse(bytes(view[_LENGTHS.size : start]), bytes(view[start:end]))
        del self._buffer[:end]
        return message

    def _parse(self, header: bytes, payload: bytes) -> T:
        try:
            message = self._adapter.validate_json(header, strict=True)
        except ValidationError as error:
            raise ProtocolError(f"no message: {error.errors(include_input=False)}") from error
        return _with_payload(message, payload) if payload else message


def _with_payload(message: T, payload: bytes) -> T:
    match message:
        case Read():
            return replace(message, image=payload)
        case Delta():
            return replace(message, text=payload)
        case Done():
            return replace(message, recognition=payload)
    raise ProtocolError(f"a payload behind {message}")


def from_host() -> Decoder[FromHost]:
    """What the child reads with."""
    return Decoder(_FROM_HOST)


def from_child() -> Decoder[FromChild]:
    """What the host reads with."""
    return Decoder(_FROM_CHILD)
