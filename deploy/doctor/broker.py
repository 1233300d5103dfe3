"""The broker: whether it can be reached, and refuses rather than forgets when it is full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deploy.doctor.finding import Finding, failure, well
from shared.config import Settings

FULL = 0.9


def connect(settings: Settings) -> redis.Redis:
    """A client that waits two seconds; raises ValueError for what is no address."""
    return redis.Redis.from_url(
        settings.broker_url.get_secret_value(),
        socket_timeout=2,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def check(settings: Settings) -> Iterator[Finding]:
    """All that can be asked of the server itself."""
    if not settings.broker_url.get_secret_value():
        yield failure("broker", "no address", mend="set OCTAVO_BROKER_URL")
        return
    try:
        with connect(settings) as broker:
            facts: Any = broker.info()
    except redis.AuthenticationError as error:
        yield failure("broker", str(error), mend="put the right password into OCTAVO_BROKER_URL")
    except (redis.RedisError, ValueError) as error:
        mend = "start Valkey, and look at host and port in OCTAVO_BROKER_URL"
        yield failure("broker", str(error), mend=mend)
    else:
        version = facts.get("valkey_version") or facts["redis_version"]
        yield well("broker", f"version {version} answers")
        yield _policy(facts)
        yield _memory(facts)


def _policy(facts: dict[str, Any]) -> Finding:
    policy = facts["maxmemory_policy"]
    if policy != "noeviction":
        return failure(
            "broker policy",
            f"{policy}: a full broker throws messages away without a word",
            mend="set maxmemory-policy to noeviction",
        )
    return well("broker policy", policy)


def _memory(facts: dict[str, Any]) -> Finding:
    used, most = int(facts["used_memory"]), int(facts["maxmemory"])
    said = f"{used / 1024**2:.0f} MiB used" + (f" of {most / 1024**2:.0f}" if most else "")
    if most and used > FULL * most:
        return failure("broker memory", said, mend="raise maxmemory: it refuses messages")
    return well("broker memory", said)
