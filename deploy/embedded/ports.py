"""TCP ports on loopback that servers can keep from one start to the next."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING

from deploy.embedded.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Collection

HOST = "127.0.0.1"

PORTS = range(20_000, 32_000)
"""Below Linux's ephemeral range: no outgoing connection takes a port while its server is down."""


def is_free(port: int) -> bool:
    """Whether nobody listens on the port."""
    with socket.socket() as listener:
        # As the servers do: connections of the last server that linger do not count.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            return False
    return True


def choose(count: int, *, taken: Collection[int] = ()) -> list[int]:
    """Return `count` free ports, none of them in `taken`; raises ServiceError.

    By chance, so that two directories started at the same moment hardly ever meet.
    """
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if port not in taken and is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise ServiceError(f"there are no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


def choose_pair(apart: int, *, taken: Collection[int] = ()) -> list[int]:
    """Return two free ports `apart` from each other, neither in `taken`; raises ServiceError."""
    lower = range(PORTS.start, PORTS.stop - apart)
    for port in random.sample(lower, len(lower)):
        pair = [port, port + apart]
        if not set(pair) & set(taken) and all(map(is_free, pair)):
            return pair
    raise ServiceError(f"there are no two free ports {apart} apart")
