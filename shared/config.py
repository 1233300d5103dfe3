"""The settings: flat, each with its unit and default, from `OCTAVO_<NAME>` in the environment.

What the machine can tell (threads, batch sizes) is derived and not set here. docs/settings.md
lists them all; a test holds it complete.
"""

from __future__ import annotations

import functools
import json
from typing import Annotated

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.roles import Role

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]  # a second


class Settings(BaseSettings):
    """What an operator may set. The addresses and the secret must be given."""

    model_config = SettingsConfigDict(env_prefix="OCTAVO_", frozen=True, extra="ignore")

    # Where the parts are
    database_url: SecretStr  # postgresql+psycopg2://role:password@host:port/name
    role_passwords: Annotated[dict[Role, SecretStr], NoDecode] = {}  # for `octavo migrate` alone
    broker_url: SecretStr = SecretStr("")  # redis://:password@host:port/0; the gateway needs none
    store_url: str  # the S3 endpoint
    store_bucket: str = "octavo"
    store_region: str = "us-east-1"
    store_access_key: SecretStr
    store_secret_key: SecretStr
    secret_key: Annotated[SecretStr, Field(min_length=32)]  # peppers API keys, seals passwords
    public_url: str = "http://127.0.0.1:8000"  # what links in answers begin with

    health_file: str = ""  # where a process tells `octavo health` how it is

    # What one document may be
    max_upload_bytes: Count = 512 * 1024**2
    max_pages: Count = 2_000
    max_page_pixels: Count = 40_000_000
    max_side_pixels: Count = 20_000
    min_side_pixels: Count = 16
    max_side_ratio: Count = 100
    render_dpi: Count = 150
    render_memory_bytes: Count = 1024**3  # address space of the child that opens a document
    render_page_seconds: Seconds = 10  # of CPU, and 1.4 times that by the clock

    # What the gateway takes at once
    max_uploads: Count = 32
    max_upload_seconds: Seconds = 3600
    min_upload_bytes_per_second: Count = 8 * 1024
    upload_patience_seconds: Seconds = 20  # a sender may be behind by at most
    max_tenant_uploads: Count = 16  # of one tenant
    max_waiters: Count = 500  # clients in a long poll
    max_tenant_waiters: Count = 250  # of them one tenant's
    max_wait_seconds: Seconds = 60
    max_watchers: Count = 100  # clients that watch a page being read
    max_tenant_watchers: Count = 20  # of them one tenant's
    max_watch_seconds: Seconds = 600
    unready_seconds: Annotated[float, Field(ge=0)] = 5  # unready, and still serving, at its end
    max_failed_logins: Count = 100  # a minute, of one address or one key id

    # What a tenant may have, unless its row says otherwise (`octavo tenants limit`)
    max_open_jobs: Count = 10_000
    max_open_pages: Count = 200_000  # of jobs that have not ended
    max_stored_bytes: Count = 100 * 1024**3
    max_requests_per_second: Rate = 500  # at each gateway

    # When the platform takes no more, and what a request's key is worth
    max_queue_seconds: Seconds = 6 * 3600  # estimated wait; well within job_hours
    idempotency_hours: Seconds = 24
    idempotency_lease_seconds: Seconds = 30  # a request under way that died blocks its key so long

    # The queue of record
    lease_seconds: Seconds = 30
    heartbeat_seconds: Seconds = 5
    sweep_seconds: Seconds = 2
    dispatch_seconds: Seconds = 0.03
    resend_seconds: Seconds = 15
    consume_seconds: Seconds = 60  # with free slots and messages waiting, and none taken
    drain_seconds: Seconds = 60  # for a worker that is told to end to finish what it holds
    max_failures: Count = 4
    pages_ahead: Count = 64  # unread pages of one job that prepare stays ahead by at most

    # The engines
    engines: Annotated[tuple[str, ...], NoDecode] = ("paddle",)  # the first is `auto`
    fallback_engines: Annotated[tuple[str, ...], NoDecode] = ()  # read what the first could not
    page_seconds: Seconds = 120  # an engine may work on one page this long
    stall_seconds: Seconds = 60  # an engine may be this long without a sign of progress
    max_recognition_bytes: Count = 4 * 1024**2

    # How long things are kept
    job_hours: Seconds = 24  # a job ends within this, one way or the other
    result_days: Seconds = 30  # after a job's end its bytes are kept this long
    orphan_hours: Seconds = 24  # an object that belongs to nothing is kept this long

    @field_validator("engines", "fallback_engines", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(","))) if isinstance(value, str) else value

    @field_validator("fallback_engines")
    @classmethod
    def _are_offered(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if strange := set(value) - set(info.data.get("engines", value)):
            raise ValueError(f"not among OCTAVO_ENGINES: {', '.join(sorted(strange))}")
        return value

    @field_validator("role_passwords", mode="before")
    @classmethod
    def _parse(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value


class InvalidSettings(Exception):
    """A setting is missing or wrong; says which, and never what it was."""


@functools.cache
def settings() -> Settings:
    """The settings of this process, read from the environment once; raises InvalidSettings."""
    try:
        return Settings()
    except ValidationError as error:
        found = [
            f"  OCTAVO_{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}"
            for one in error.errors(include_input=False, include_url=False)
        ]
        raise InvalidSettings("\n".join(["These settings are not right:", *found])) from None
