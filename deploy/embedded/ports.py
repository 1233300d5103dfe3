"""TCP ports on loopback that servers can keep from one start to the next."""

from __future__ import annotations

import contextlib
import random
import socket
from typing import TYPE_CHECKING

from deploy.embedded.errors import ServiceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

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


_claims: dict[int, socket.socket] = {}
"""What this process has claimed: of each port the UDP port of the same number."""


def claim(port: int) -> bool:
    """Whether the port is free, and this process's until it releases the port, or ends.

    A port that was chosen is free until its server listens, and again while that is down: others
    that start just then, or a server that tries to listen for a minute, would take it. So whoever
    chooses it holds the UDP port of that number, which nobody needs. The kernel gives that to one
    process of the host, whoever's, and takes it back from a dead one.
    """
    if port not in _claims:
        held = socket.socket(type=socket.SOCK_DGRAM)
        try:
            held.bind((HOST, port))
        except OSError:
            held.close()
            return False
        _claims[port] = held
    if not is_free(port):
        release([port])
        return False
    return True


def release(ports: Iterable[int]) -> None:
    """Let others choose these ports."""
    for port in ports:
        if held := _claims.pop(port, None):
            held.close()


def choose(count: int, *, taken: Collection[int] = ()) -> list[int]:
    """Claim `count` free ports, none of them in `taken`; raises ServiceError."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if _choose(port, taken):
            found.append(port)
        if len(found) == count:
            return found
    release(found)
    raise ServiceError(f"there are no {count} free ports from {PORTS.start} to {PORTS.stop - 1}")


def choose_pair(apart: int, *, taken: Collection[int] = ()) -> list[int]:
    """Claim two free ports `apart` from each other, neither in `taken`; raises ServiceError."""
    lower = range(PORTS.start, PORTS.stop - apart)
    for port in random.sample(lower, len(lower)):
        if _choose(port, taken):
            if _choose(port + apart, taken):
                return [port, port + apart]
            release([port])
    raise ServiceError(f"there are no two free ports {apart} apart")


@contextlib.contextmanager
def chosen(count: int, *, taken: Collection[int] = ()) -> Iterator[list[int]]:
    """Choose ports for the block; raises ServiceError."""
    found = choose(count, taken=taken)
    try:
        yield found
    finally:
        release(found)


def _choose(port: int, taken: Collection[int]) -> bool:
    """Claim a port that is nobody's, this process's other servers included."""
    return port not in taken and port not in _claims and claim(port)
