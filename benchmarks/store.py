"""The store of a platform that is measured, as its settings name it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shared import s3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def client(environment: Mapping[str, str]) -> S3Client:
    """A client of the store that a process with this environment would use."""
    return s3.client(
        url=environment["OCTAVO_STORE_URL"],
        region=environment.get("OCTAVO_STORE_REGION", "us-east-1"),
        access_key=environment["OCTAVO_STORE_ACCESS_KEY"],
        secret_key=environment["OCTAVO_STORE_SECRET_KEY"],
    )
