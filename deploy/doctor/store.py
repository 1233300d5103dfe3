"""The object store: whether it can be reached, and keeps to what the platform relies on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import obstore

from deploy.doctor.finding import Finding, failure, warning, well
from shared import s3
from shared.config import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PREFIX = "octavo-doctor/"
SKEW_SECONDS = 600
"""Stores refuse signatures that are a quarter of an hour off."""

_MENDS = {
    "404": "make the bucket, such as by: python -m deploy.bucket; or set OCTAVO_STORE_BUCKET",
    "403": "put the right keys into OCTAVO_STORE_ACCESS_KEY and OCTAVO_STORE_SECRET_KEY",
}
_START = "start the store, and look at OCTAVO_STORE_URL"
_OTHER = "use a store that keeps to S3 in this; SeaweedFS 4.48 does"


def check(settings: Settings) -> Iterator[Finding]:
    """Reach it, then write, read and delete as the platform does, below a prefix of its own."""
    store = s3.client(
        url=settings.store_url,
        region=settings.store_region,
        access_key=settings.store_access_key.get_secret_value(),
        secret_key=settings.store_secret_key.get_secret_value(),
        read_seconds=5,
        attempts=1,
    )
    try:
        answer = store.head_bucket(Bucket=settings.store_bucket)
    except s3.CLIENT_ERRORS as error:
        yield failure("store", _said(error), mend=_MENDS.get(_code(error), _START))
        return
    yield well("store", f"the bucket {settings.store_bucket} answers")
    yield _clock(answer["ResponseMetadata"]["HTTPHeaders"])
    for part, probe in _PROBES.items():
        yield _probed(part, probe, store, settings.store_bucket)
    yield _pages(settings)


def _pages(settings: Settings) -> Finding:
    """Put and read an object by the client that documents, pages and results pass through."""
    objects = s3.objects(
        url=settings.store_url,
        region=settings.store_region,
        bucket=settings.store_bucket,
        access_key=settings.store_access_key.get_secret_value(),
        secret_key=settings.store_secret_key.get_secret_value(),
        read_seconds=5,
    )
    key = f"{PREFIX}{uuid4().hex}"
    try:
        obstore.put(objects, key, b"page", use_multipart=False)
        is_same = bytes(obstore.get(objects, key).bytes()) == b"page"
        obstore.delete(objects, key)
    except s3.OBJECT_ERRORS as error:
        return failure("store pages", str(error).partition("\n")[0], mend=_OTHER)
    if not is_same:
        return failure("store pages", "it gives back other bytes than it took", mend=_OTHER)
    return well("store pages", "as the platform needs them")


def _objects(store: S3Client, bucket: str, key: str) -> str:
    store.put_object(Bucket=bucket, Key=key, Body=b"probe")
    read = store.get_object(Bucket=bucket, Key=key)["Body"].read()
    store.delete_object(Bucket=bucket, Key=key)
    if read != b"probe":
        return "it gives back other bytes than it took"
    try:
        store.get_object(Bucket=bucket, Key=key)
    except store.exceptions.NoSuchKey:
        return ""
    return "it gives back what was deleted"


def _multipart(store: S3Client, bucket: str, key: str) -> str:
    where: Any = {"Bucket": bucket, "Key": key}
    upload = store.create_multipart_upload(**where)["UploadId"]
    bodies = [b"a" * 5 * 1024**2, b"b"]
    parts: Any = [
        {
            "PartNumber": number,
            "ETag": store.upload_part(**where, UploadId=upload, PartNumber=number, Body=body)[
                "ETag"
            ],
        }
        for number, body in enumerate(bodies, start=1)
    ]
    store.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})
    length = store.head_object(**where)["ContentLength"]
    return "" if length == sum(map(len, bodies)) else f"of two parts it made {length} bytes"


def _conditional(store: S3Client, bucket: str, key: str) -> str:
    store.put_object(Bucket=bucket, Key=key, Body=b"first", IfNoneMatch="*")
    with suppress(*s3.CLIENT_ERRORS):
        store.put_object(Bucket=bucket, Key=key, Body=b"second", IfNoneMatch="*")
        return "a second writer overwrites what must be written once"
    kept = store.get_object(Bucket=bucket, Key=key)["Body"].read()
    return "" if kept == b"first" else "a refused write was made all the same"


_PROBES: dict[str, Callable[[S3Client, str, str], str]] = {
    "store objects": _objects,
    "store multipart": _multipart,
    "store conditions": _conditional,
}


def _probed(
    part: str, probe: Callable[[S3Client, str, str], str], store: S3Client, bucket: str
) -> Finding:
    key = f"{PREFIX}{uuid4().hex}"
    try:
        wrong = probe(store, bucket, key)
    except s3.CLIENT_ERRORS as error:
        wrong = _said(error)
    finally:
        with suppress(*s3.CLIENT_ERRORS):
            store.delete_object(Bucket=bucket, Key=key)
    return failure(part, wrong, mend=_OTHER) if wrong else well(part, "as the platform needs them")


def _clock(headers: dict[str, str]) -> Finding:
    theirs = headers.get("date")
    skew = abs(time.time() - parsedate_to_datetime(theirs).timestamp()) if theirs else 0.0
    said = f"{skew:.0f} s from this machine's"
    if skew > SKEW_SECONDS:
        return warning("store clock", said, mend="set both clocks by NTP: signatures expire")
    return well("store clock", said)


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _said(error: Exception) -> str:
    return " ".join(str(error).split())
