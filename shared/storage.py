"""The object store: bytes under keys, in one bucket of an S3-compatible server.

Everything that belongs to a job lies under one prefix, `TENANT/JOB/`, so that deleting a job is
deleting a prefix. What an attempt of some work writes has the attempt in its key: a late writer
cannot overwrite what the owner wrote.

Objects are put and read by obstore, all else is asked of the bucket by boto3: see `shared/s3.py`.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING
from uuid import UUID

import obstore
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from shared import s3
from shared.config import settings
from shared.errors import DependencyUnavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef
    from obstore import Attributes
    from obstore.store import S3Store

PART_BYTES = 8 * 1024**2
"""Size of a part of a multipart upload; smaller objects are put at once."""

SILENT_SECONDS = 7
"""For so long an answer is waited for: a frozen store must not hold all uploads that a tenant may have."""

LARGE_BYTES, LARGE_SECONDS = 1024**2, 60
"""The answer to a PUT comes when its body was sent, which may take long."""

LISTED = 1000
"""Objects listed, or deleted, by one request; no store does more."""

_MISSING = {"NoSuchKey", "NoSuchUpload", "404", "NotFound"}


class ObjectMissing(Exception):
    """There is no object under the key."""


def job_prefix(tenant: UUID, job_id: UUID) -> str:
    """What the keys of all objects of a job begin with."""
    return f"{tenant.hex}/{job_id.hex}/"


def source_key(tenant: UUID, job_id: UUID) -> str:
    """Where the uploaded document lies."""
    return f"{job_prefix(tenant, job_id)}source"


def page_key(tenant: UUID, job_id: UUID, page_no: int, attempt: int) -> str:
    """Where an attempt of prepare puts the image of a page."""
    return f"{job_prefix(tenant, job_id)}pages/{page_no}/{attempt}.jpg"


def figure_key(tenant: UUID, job_id: UUID, page_no: int, attempt: int, number: int) -> str:
    """Where an attempt of recognise puts a figure of a page."""
    return f"{job_prefix(tenant, job_id)}pages/{page_no}/figures/{attempt}/{number}.jpg"


def result_key(tenant: UUID, job_id: UUID, attempt: int, extension: str) -> str:
    """Where an attempt of assemble puts the result in one format."""
    return f"{job_prefix(tenant, job_id)}result/{attempt}/document.{extension}"


@dataclass(frozen=True)
class KeyParts:
    """What a key says of its object."""

    tenant: UUID
    job_id: UUID
    is_page: bool
    figure_of: tuple[int, int] | None  # the page and the attempt whose figure it is
    result_attempt: int | None  # whose result it is; None where it is something else


_KEY = re.compile(
    r"([0-9a-f]{32})/([0-9a-f]{32})/(?:(pages)/\d+/\d+\.jpg"
    r"|pages/(\d{1,9})/figures/(\d{1,9})/\d+\.jpg|result/(\d+)/document\.\w+|.+)"
)


def parse_key(key: str) -> KeyParts | None:
    """What a key says; None where it is none of a job's."""
    found = _KEY.fullmatch(key)
    if found is None:
        return None
    tenant, job_id, pages, page_no, figure_attempt, attempt = found.groups()
    return KeyParts(
        UUID(hex=tenant),
        UUID(hex=job_id),
        is_page=pages is not None,
        figure_of=(int(page_no), int(figure_attempt)) if page_no else None,
        result_attempt=int(attempt) if attempt else None,
    )


def make_bucket(of: S3Client | None = None, name: str | None = None) -> None:
    """Make the bucket unless it is there."""
    chosen = of or store()
    with suppress(chosen.exceptions.BucketAlreadyOwnedByYou):
        chosen.create_bucket(Bucket=name or _bucket())


def put(key: str, body: bytes, media_type: str = "application/octet-stream") -> None:
    """Store `body` whole under `key`."""
    attributes: Attributes = {"Content-Type": media_type}
    try:
        with typed_errors():
            objects = _objects(is_large=len(body) > LARGE_BYTES)
            obstore.put(objects, key, body, attributes=attributes, use_multipart=False)
    except ObjectMissing as error:  # what is missing is the bucket
        raise DependencyUnavailable(_REFUSED, retry_after_seconds=5) from error


def get(key: str) -> bytes:
    """The bytes under `key`; raises ObjectMissing."""
    with typed_errors():
        return bytes(obstore.get(_objects(), key).bytes())


def stream(key: str) -> Iterator[bytes]:
    """The bytes under `key` in pieces; raises ObjectMissing before the first."""
    return _pieces(key, 256 * 1024)


def download(key: str, file: IO[bytes], *, on_piece: Callable[[], None]) -> str:
    """Write the bytes under `key` into `file`; their SHA-256. Raises ObjectMissing.

    `on_piece` hears of every megabyte.
    """
    digest = hashlib.sha256()
    for piece in _pieces(key, 1024**2):
        digest.update(piece)
        file.write(piece)
        on_piece()
    return digest.hexdigest()


def _pieces(key: str, least_bytes: int) -> Iterator[bytes]:
    with typed_errors():
        found = obstore.get(_objects(), key)

    def pieces() -> Iterator[bytes]:
        with typed_errors():
            yield from map(bytes, found.stream(min_chunk_size=least_bytes))

    return pieces()


def copy(source: str, target: str) -> None:
    """Store again under `target` what lies under `source`; raises ObjectMissing."""
    with typed_errors():
        store().copy(  # in parts where it is large, and inside the store
            {"Bucket": _bucket(), "Key": source}, _bucket(), target
        )


@dataclass(frozen=True)
class StoredObject:
    """An object as the store lists it."""

    key: str
    stored_at: datetime


def listing(prefix: str = "") -> Iterator[list[StoredObject]]:
    """All objects whose keys begin with `prefix`, in order of their keys, LISTED at a time."""
    with typed_errors():
        pages = store().get_paginator("list_objects_v2")
        listed = pages.paginate(
            Bucket=_bucket(), Prefix=prefix, PaginationConfig={"PageSize": LISTED}
        )
        for page in listed:
            yield [
                StoredObject(entry["Key"], entry["LastModified"])
                for entry in page.get("Contents", [])
            ]


def delete(keys: Sequence[str]) -> None:
    """Delete the objects under the keys, at most a thousand; those that are gone already too."""
    if not keys:
        return
    with typed_errors():
        answer = store().delete_objects(
            Bucket=_bucket(), Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True}
        )
    if answer.get("Errors"):  # in an answer of 200
        raise DependencyUnavailable("The object store keeps what was to be deleted.")


def delete_prefix(prefix: str) -> int:
    """Delete all objects whose keys begin with `prefix`; how many there were."""
    deleted = 0
    for objects in listing(prefix):
        delete([found.key for found in objects])
        deleted += len(objects)
    return deleted


@dataclass(frozen=True)
class UnfinishedUpload:
    """Parts in the store that are no object yet, and never will be if whoever sent them died."""

    key: str
    upload_id: str
    begun_at: datetime


def unfinished_uploads() -> Iterator[UnfinishedUpload]:
    """Uploads in parts that were begun and neither completed nor aborted."""
    with typed_errors():
        for page in store().get_paginator("list_multipart_uploads").paginate(Bucket=_bucket()):
            for entry in page.get("Uploads", []):
                yield UnfinishedUpload(entry["Key"], entry["UploadId"], entry["Initiated"])


def abort_upload(key: str, upload_id: str) -> None:
    """Take away the parts of an unfinished upload; nothing, where it is gone."""
    with suppress(ObjectMissing), typed_errors():
        store().abort_multipart_upload(Bucket=_bucket(), Key=key, UploadId=upload_id)


class Writer:
    """An object written piece by piece, with at most one part of it in memory.

    Nothing lies under the key before `close`; `abort` leaves nothing behind.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._upload_id: str | None = None
        self._parts: list[CompletedPartTypeDef] = []

    def part(self, body: bytes) -> None:
        """Store the next part, of PART_BYTES or more; only the last may be smaller."""
        with typed_errors():
            if self._upload_id is None:
                answer = store().create_multipart_upload(Bucket=_bucket(), Key=self._key)
                self._upload_id = answer["UploadId"]
            number = len(self._parts) + 1
            stored = store().upload_part(
                Bucket=_bucket(),
                Key=self._key,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=body,
            )
            self._parts.append({"ETag": stored["ETag"], "PartNumber": number})

    def close(self, rest: bytes, media_type: str) -> None:
        """Store the last part, which may be the only one, and make the object appear."""
        if self._upload_id is None:
            put(self._key, rest, media_type)
            return
        if rest:
            self.part(rest)
        with typed_errors():
            store().complete_multipart_upload(
                Bucket=_bucket(),
                Key=self._key,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": self._parts},
            )

    def abort(self) -> None:
        """Forget the parts stored so far; where that fails, they are collected as orphans."""
        if self._upload_id is None:
            return
        with suppress(DependencyUnavailable):
            abort_upload(self._key, self._upload_id)


@functools.cache
def store() -> S3Client:
    """The client of the platform's own store; what it raises is for `typed_errors`."""
    where = settings()
    return s3.client(
        url=where.store_url,
        region=where.store_region,
        access_key=where.store_access_key.get_secret_value(),
        secret_key=where.store_secret_key.get_secret_value(),
    )


@functools.cache
def _objects(*, is_large: bool = False) -> S3Store:
    """The objects of the platform's own store; what is large may take long to be sent."""
    where = settings()
    return s3.objects(
        url=where.store_url,
        region=where.store_region,
        bucket=where.store_bucket,
        access_key=where.store_access_key.get_secret_value(),
        secret_key=where.store_secret_key.get_secret_value(),
        read_seconds=LARGE_SECONDS if is_large else SILENT_SECONDS,
    )


def _bucket() -> str:
    return settings().store_bucket


_REFUSED = "The object store refused."


@contextmanager
def typed_errors() -> Iterator[None]:
    """Turn what the clients of the store raise into what callers act on."""
    try:
        yield
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") in _MISSING:
            raise ObjectMissing from error
        raise DependencyUnavailable(_REFUSED, retry_after_seconds=5) from error
    except FileNotFoundError as error:
        raise ObjectMissing from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise DependencyUnavailable(_REFUSED, retry_after_seconds=5) from error
    except (BotoCoreError, BaseError) as error:
        message = "The object store does not answer."
        raise DependencyUnavailable(message, retry_after_seconds=5) from error
