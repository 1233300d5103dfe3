"""Children that open hostile documents, as the worker sees them.

A child has one document and what `confinement` leaves it. It is asked by short messages and
answers by short messages; pixels lie in memory that is ours, sized and sealed before the child has
it. Nothing that it says is believed: an answer is read by its schema, a size is held against the
memory, a text is data. Its end, and its lateness, are answers too.

Several threads may have children at once; a child is for one thread at a time. What they are
forked from is in `nursery`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict
from mmap import PROT_READ, mmap
from typing import Annotated, Any, TypeVar

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.errors import (
    DocumentEncrypted,
    DocumentInvalid,
    DocumentTooExpensive,
    ImageDimensions,
    InternalError,
    OctavoError,
)
from shared.media import MediaType
from worker.pipeline.limits import BYTES_PER_PIXEL, DETAIL_CHARACTERS, MESSAGE_BYTES, Limits
from worker.pipeline.nursery import Zygote, nursery


class ChildLost(Exception):
    """The child died, or was killed for its lateness, before it answered."""


class ChildLate(ChildLost):
    """The child was killed, since it took longer than one answer may take."""


class ChildLied(ChildLost):
    """The child was killed, since its answer cannot be true."""


class ZygoteLost(Exception):
    """The child died with its zygote, which says nothing of its document."""


Fork = Callable[[bytes, list[int]], tuple[Zygote, int]]
"""From an order and its descriptors to a zygote and the pidfd of its new child."""


def open_child(
    document: int, media_type: MediaType, *, limits: Limits, password: str | None
) -> Child:
    """A new child that has opened the document in the read-only descriptor `document`.

    Raises DocumentInvalid, DocumentEncrypted, DocumentTooExpensive or ImageDimensions where it says
    so, ChildLost or ZygoteLost where it cannot, and DependencyUnavailable where no child can be had.
    """
    child = start_child(document, media_type, limits, fork=nursery.fork)
    try:
        child.open(password)
    except BaseException:
        child.close()
        raise
    return child


def start_child(document: int, media_type: MediaType, limits: Limits, *, fork: Fork) -> Child:
    """A new child that has not opened its document; raises as `open_child` where none can be had."""
    with ExitStack() as held:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held.enter_context(ours)
        pixels = sealed_memory(limits.max_page_pixels * BYTES_PER_PIXEL)
        held.callback(os.close, pixels)
        order = {"media_type": media_type, "limits": asdict(limits)}
        with theirs:
            descriptors = [theirs.fileno(), document, pixels]
            zygote, process = fork(json.dumps(order).encode(), descriptors)
        held.callback(os.close, process)
        held.pop_all()  # the child's to close
    return Child(ours, process=process, pixels=pixels, limits=limits, zygote=zygote)


def sealed_memory(size: int) -> int:
    """A descriptor of `size` bytes of memory, which nobody can make larger or smaller again.

    Memory is taken only as it is written to. Since it cannot shrink, reading it cannot fault.
    """
    memory = os.memfd_create("pixels", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, size)
    fcntl.fcntl(
        memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    )
    return memory


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


_Number = Annotated[int, Field(ge=0, lt=2**31)]  # one of thousands of digits cannot be printed


class _Opened(_Answer):
    pages: _Number


class _Drawn(_Answer):
    width: _Number
    height: _Number
    is_grey: bool


class _Refused(_Answer):
    error: str
    detail: str

    def as_error(self) -> OctavoError:
        """The error of that code, with as much of the text as can be printed."""
        detail = "".join(letter for letter in self.detail if letter.isprintable())
        return _REFUSALS.get(self.error, DocumentInvalid)(detail[:DETAIL_CHARACTERS])


_OPENED: TypeAdapter[_Opened | _Refused] = TypeAdapter(_Opened | _Refused)
_DRAWN: TypeAdapter[_Drawn | _Refused] = TypeAdapter(_Drawn | _Refused)
_REFUSALS: dict[str, type[OctavoError]] = {
    error.code: error
    for error in (
        DocumentEncrypted,
        DocumentInvalid,
        DocumentTooExpensive,
        ImageDimensions,
        InternalError,
    )
}
_A = TypeVar("_A", bound=_Answer)


class Child:
    """A child and its document, until it is closed or lost."""

    pages_total: int  # as the child says
    pages_rendered: int = 0

    def __init__(
        self,
        connection: socket.socket,
        *,
        process: int,
        pixels: int,
        limits: Limits,
        zygote: Zygote,
    ) -> None:
        """`process` is its pidfd and `pixels` the memory that it draws on; both are ours to close."""
        self.connection = connection
        self._process = process
        self._pixels = pixels
        self._limits = limits
        self._zygote = zygote
        connection.settimeout(limits.answer_seconds)

    def open(self, password: str | None) -> None:
        """Open the document, as `open_child` says."""
        password = password and password[:_PASSWORD_CHARACTERS]
        self.pages_total = self._ask({"open": {"password": password}}, _OPENED).pages

    def render(self, index: int) -> Image.Image:
        """The page at `index`, from 0, in RGB or grey.

        Raises DocumentInvalid, DocumentTooExpensive, ImageDimensions, ChildLost or ZygoteLost.
        """
        drawn = self._ask({"render": index}, _DRAWN)
        self.pages_rendered += 1
        return self._image(drawn.width, drawn.height, is_grey=drawn.is_grey)

    def close(self) -> None:
        """End the child, whatever it does. Once is enough, and more does nothing."""
        if self.connection.fileno() < 0:
            return
        self._kill()
        self.connection.close()
        os.close(self._process)
        os.close(self._pixels)

    def _ask(self, question: dict[str, Any], answers: TypeAdapter[_A | _Refused]) -> _A:
        try:
            answer = answers.validate_json(self._exchange(json.dumps(question).encode()))
        except ValidationError as error:
            self._kill()
            raise ChildLied("the renderer answered nonsense") from error
        if isinstance(answer, _Refused):
            raise answer.as_error()
        return answer

    def _exchange(self, question: bytes) -> bytes:
        try:
            self.connection.send(question)
            answer = self.connection.recv(MESSAGE_BYTES)  # of a longer one, the rest is gone
        except TimeoutError as error:
            self._kill()
            raise ChildLate(f"it took more than {self._limits.answer_seconds:g} s") from error
        except OSError:
            answer = b""
        if answer:
            return answer
        if self._zygote.is_alive():
            raise ChildLost("it takes more memory or time than one document may take")
        raise ZygoteLost

    def _image(self, width: int, height: int, *, is_grey: bool) -> Image.Image:
        size = width * height * BYTES_PER_PIXEL
        try:
            self._limits.check_dimensions(width, height)
        except ImageDimensions as error:
            self._kill()
            raise ChildLied(error.detail) from error
        if size > os.fstat(self._pixels).st_size:
            self._kill()
            raise ChildLied("more pixels than there is room for")
        with mmap(self._pixels, size, prot=PROT_READ) as memory, memoryview(memory) as pixels:
            return Image.frombytes("L" if is_grey else "RGB", (width, height), pixels)

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._process, signal.SIGKILL)


_PASSWORD_CHARACTERS = 1_000
"""A PDF's password has at most 127 bytes; a longer one than this would not fit into a message."""
