"""A document on its way to the server: one multipart body, made piece by piece.

The options stand before the file, so that the server can refuse them before it reads a document.
Only one piece of the file is in memory at a time.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Iterator
from typing import BinaryIO

from client.errors import OctavoError
from client.models import Options

PIECE_BYTES = 64 * 1024

# What HTML has escaped in the names of a form's parts, so that a name cannot end its header.
_ESCAPED = re.compile(r'["\x00-\x1f\x7f]')


class Upload:
    """A document with its options. The file stays the caller's, who closes it.

    It is read from where it stands; `body()` may be asked for again where the file can be wound
    back.
    """

    def __init__(
        self,
        file: BinaryIO,
        *,
        name: str,
        options: Options,
        on_bytes: Callable[[int], None] | None = None,
    ) -> None:
        """`on_bytes` is told, again and again, how many bytes of the file were taken so far."""
        self._file = file
        self._on_bytes = on_bytes
        self._boundary = secrets.token_hex(16)
        self._before = self._head(name, options)
        self._after = f"\r\n--{self._boundary}--\r\n".encode()
        self._begin = file.tell() if file.seekable() else None
        self._file_bytes = self._bytes_left()

    @property
    def can_repeat(self) -> bool:
        """Whether the body can be made a second time."""
        return self._begin is not None

    def headers(self) -> dict[str, str]:
        """What belongs beside the body; its length only where it is known beforehand."""
        headers = {"Content-Type": f"multipart/form-data; boundary={self._boundary}"}
        if self._file_bytes is not None:
            total_bytes = len(self._before) + self._file_bytes + len(self._after)
            headers["Content-Length"] = str(total_bytes)
        return headers

    def body(self) -> Iterator[bytes]:
        """The body, from its beginning."""
        yield self._before
        yield from self._pieces()
        yield self._after

    def _head(self, name: str, options: Options) -> bytes:
        given = {key: value for key, value in options.items() if value is not None}
        # The server goes by the bytes of a document, so its type is not guessed here.
        head = (
            f"--{self._boundary}\r\n"
            'Content-Disposition: form-data; name="options"\r\n'
            "Content-Type: application/json\r\n\r\n"
            f"{json.dumps(given)}\r\n"
            f"--{self._boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{_escaped(name)}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        # A name of the file system may hold bytes that are no text.
        return head.encode(errors="replace")

    def _bytes_left(self) -> int | None:
        if self._begin is None:
            return None
        end = self._file.seek(0, os.SEEK_END)
        self._file.seek(self._begin)
        return end - self._begin

    def _pieces(self) -> Iterator[bytes]:
        if self._begin is not None:
            self._file.seek(self._begin)
        taken = 0
        while piece := self._file.read(PIECE_BYTES):
            taken += len(piece)
            self._check_length(taken, at_end=False)
            yield piece
            if self._on_bytes is not None:
                self._on_bytes(taken)
        self._check_length(taken, at_end=True)

    def _check_length(self, taken: int, *, at_end: bool) -> None:
        """Stop before a body that is not as long as its header says."""
        if self._file_bytes is None:
            return
        if taken > self._file_bytes or (at_end and taken < self._file_bytes):
            raise OctavoError("the file changed while it was sent")


def _escaped(name: str) -> str:
    escaped = _ESCAPED.sub(lambda found: f"%{ord(found[0]):02X}", name)
    return escaped.replace("\\", "\\\\")
