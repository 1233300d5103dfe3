"""A document on its way from the request into the store: counted, hashed, sniffed, never whole.

At most one part of it is in memory. The object exists before its row does: a crash leaves an
object that nobody knows, never a row without its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from itertools import islice

from fastapi.concurrency import run_in_threadpool

from shared import crash_point, storage
from shared.config import settings
from shared.errors import EmptyUpload, UnsupportedFormat, UploadTooLarge
from shared.media import SNIFF_BYTES, MediaType, sniff


@dataclass(frozen=True)
class Upload:
    """A document in the store."""

    media_type: MediaType
    bytes: int
    sha256: str


async def receive(chunks: AsyncIterator[bytes], key: str | None) -> Upload:
    """Store the document that comes in `chunks` under `key`; with None it is only looked at.

    Raises UploadTooLarge, EmptyUpload or UnsupportedFormat, and then nothing is stored.
    """
    incoming = _Incoming(key)
    try:
        async for chunk in chunks:
            await incoming.take(chunk)
        return await incoming.close()
    except BaseException:
        await run_in_threadpool(incoming.abort)
        raise


class _Nowhere:
    """Where a document goes that is in the store already."""

    def part(self, body: bytes) -> None:
        pass

    def close(self, rest: bytes, media_type: str) -> None:
        pass

    def abort(self) -> None:
        pass


class _Incoming:
    """What has come so far."""

    def __init__(self, key: str | None) -> None:
        self._writer = _Nowhere() if key is None else storage.Writer(key)
        self._part: list[bytes] = []
        self._part_bytes = 0
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._media_type: MediaType | None = None

    async def take(self, chunk: bytes) -> None:
        self._bytes += len(chunk)
        if self._bytes > settings().max_upload_bytes:
            raise UploadTooLarge(f"At most {settings().max_upload_bytes} bytes.")
        self._part.append(chunk)
        self._part_bytes += len(chunk)
        if self._media_type is None and self._part_bytes >= SNIFF_BYTES:
            self._media_type = _sniffed(self._part)
        if self._part_bytes >= storage.PART_BYTES:
            await run_in_threadpool(self._store_part)
            self._part, self._part_bytes = [], 0
            crash_point.reach("upload", "part")

    async def close(self) -> Upload:
        if not self._bytes:
            raise EmptyUpload
        media_type = self._media_type or _sniffed(self._part)
        await run_in_threadpool(self._store_rest, media_type)
        return Upload(media_type, self._bytes, self._hash.hexdigest())

    def abort(self) -> None:
        self._writer.abort()

    # Hashed in the thread that stores it, a part at a time: the event loop serves others meanwhile.

    def _store_part(self) -> None:
        self._writer.part(self._hashed_part())

    def _store_rest(self, media_type: MediaType) -> None:
        self._writer.close(self._hashed_part(), media_type)

    def _hashed_part(self) -> bytes:
        part = b"".join(self._part)
        self._hash.update(part)
        return part


def _sniffed(chunks: list[bytes]) -> MediaType:
    media_type = sniff(b"".join(islice(chunks, SNIFF_BYTES))[:SNIFF_BYTES])
    if media_type is None:
        known = ", ".join(sorted(media_type.value for media_type in MediaType))
        raise UnsupportedFormat(f"The type is told by the first bytes. Octavo reads {known}.")
    return media_type
