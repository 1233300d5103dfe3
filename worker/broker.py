"""The broker's transport, for a worker that no message can end.

kombu lets what it cannot read end the consumer: whoever can write to the broker could then keep
every worker from working, with one message.
"""

from __future__ import annotations

from typing import Any

import structlog
from kombu.transport import redis

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
"""What comes of bytes that are no message of Celery's."""

log = structlog.get_logger()


class Channel(redis.Channel):
    """A channel that throws away what is no message."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except UNREADABLE as error:
            log.warning("message_rejected", why=repr(error)[:200])
            return True


class Transport(redis.Transport):
    """Redis or Valkey, with such channels."""

    Channel = Channel
