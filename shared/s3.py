"""Clients of an S3 server: boto3's for all that can be asked of a bucket, obstore's for its objects.

What obstore puts and reads, it does in Rust. With boto3 each object takes the interpreter three
milliseconds, and a worker with hundreds of pages in flight has one interpreter.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.handlers import add_expect_header
from obstore.exceptions import BaseError
from obstore.store import S3Store

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import S3Credential

CLIENT_ERRORS = (BotoCoreError, ClientError)
"""What boto3's client raises of its own."""

OBJECT_ERRORS = (BaseError, FileNotFoundError)
"""What obstore raises."""


def client(
    *,
    url: str,
    region: str,
    access_key: str,
    secret_key: str,
    connect_seconds: float = 2,
    read_seconds: float = 10,
    attempts: int = 3,
    connections: int = 400,  # kept open, so at least one a thread: dropping them costs more
) -> S3Client:
    """An S3 client; may be used by many threads at once."""
    session = botocore.session.get_session()
    # Its own parser of dates tries every way to write them, on every answer.
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_moment)
    made = boto3.Session(botocore_session=session).client(
        "s3",
        endpoint_url=url,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=Config(
            signature_version="s3v4",  # without it a presigned length is not enforced
            s3={
                "addressing_style": "path",
                # No hash of the body in the signature: it would be the third of the same bytes.
                # TLS guards them on their way, and whoever reads a document checks its SHA-256.
                "payload_signing_enabled": False,
            },
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            max_pool_connections=connections,
            user_agent="octavo",  # else it is put together for every request
            # Checksums that S3 alone knows break other servers.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )
    # No «Expect: 100-continue», which costs a round trip a PUT. And where a server dies within that
    # answer, botocore 1.44 waits for the rest of it in a loop that nothing ends.
    made.meta.events.unregister("before-call.s3", add_expect_header)
    return made


def _moment(said: str) -> datetime:
    """A time as S3 writes it: by RFC 9110 in headers, by ISO 8601 in bodies."""
    return parsedate_to_datetime(said) if "," in said else datetime.fromisoformat(said)


def objects(
    *,
    url: str,
    region: str,
    bucket: str,
    access_key: str,
    secret_key: str,
    read_seconds: float = 10,
) -> S3Store:
    """The objects of a bucket; may be used by many threads at once."""
    credential: S3Credential = {
        "access_key_id": access_key,
        "secret_access_key": secret_key,
        "token": None,
        "expires_at": None,
    }
    return S3Store(
        bucket,
        endpoint=url,
        region=region,
        # Not as two arguments, to which it would add a session token that it finds in the environment.
        credential_provider=lambda: credential,
        virtual_hosted_style_request=False,
        unsigned_payload=True,  # see `client`
        client_options={
            "allow_http": url.startswith("http://"),
            "connect_timeout": timedelta(seconds=2),
            "read_timeout": timedelta(seconds=read_seconds),
            "timeout": timedelta(hours=1),  # in all: a large document may take long
            "user_agent": "octavo",
        },
        retry_config={
            "max_retries": 2,
            # No second try where the first has taken so long: whoever waits has waited enough.
            "retry_timeout": timedelta(seconds=read_seconds),
            "backoff": {"max_backoff": timedelta(seconds=1)},
        },
    )
