"""How a call to the server ends that brings no answer. The server is not trusted, nor its words."""

from __future__ import annotations

from shared.errors import InternalError, OctavoError, PageTooLong, PageUnreadable
from worker.engine.errors import ServerAway


class CallFailed(Exception):
    """The server gave no answer."""

    may_pass = False
    """Whether the same call is worth another try now."""
    ending: type[OctavoError] = InternalError
    """What the page ends in, once there are no more tries."""

    def __init__(self, why: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_seconds = retry_after_seconds

    @property
    def code(self) -> str:
        """Of what the page ends in."""
        return self.ending.code


class Away(CallFailed):
    """The server does not answer, or has no room: no fault of the page."""

    may_pass = True
    ending = ServerAway


class Broken(CallFailed):
    """The server failed on this page, or the connection did; the page may be why."""

    may_pass = True


class Nonsense(CallFailed):
    """The answer is none."""


class Silent(CallFailed):
    """The server took the page and said nothing for too long."""


class TooLong(CallFailed):
    """The answer does not end."""

    ending = PageTooLong


class Refused(CallFailed):
    """The server does not take this page: too many pixels, too long a prompt."""

    ending = PageUnreadable


class ServerRefuses(Exception):
    """The server takes no page at all: a wrong key, address or model. The engine's own end."""
