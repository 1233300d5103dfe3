"""The process that children are forked from, and the life of a child.

`sandbox` starts it by exec, with an empty environment and one socket, and it imports the decoders
once: a child is then a fork of some milliseconds, not 300 ms of imports. It never sees a byte of a
document: descriptors pass through it, passwords do not. A child gives up what it can, answers for
one document, and ends with its socket.

    parent → zygote    {"media_type", "limits"} and three descriptors: socket, document, pixels
    zygote → parent    {} and the child's pidfd
    parent → child     {"open": {"password"}}, then {"render": index}, again and again
    child → parent     {"pages"} or {"width", "height"}, or {"error", "detail"}
"""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import resource
import select
import signal
import socket
import time
from dataclasses import dataclass
from mmap import mmap
from typing import Any, NoReturn

from shared.errors import DocumentTooExpensive, InternalError, OctavoError
from shared.media import MediaType
from worker.pipeline import source
from worker.pipeline.limits import BYTES_PER_PIXEL, MESSAGE_BYTES, PAGES_PER_CHILD, Limits

_DETAIL_CHARACTERS = 300
_NOBODY = 65534
_OPEN_FILES = 16
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


def main(control: int) -> None:
    """Fork a child for each order that comes by the socket `control`, until it closes."""
    _end_with_parent()
    source.warm_up()
    gc.freeze()  # a collection in a child would copy pages that are shared
    with socket.socket(fileno=control) as connection:
        _take_orders(connection)


@dataclass(frozen=True)
class Order:
    """What one child is for."""

    media_type: MediaType
    limits: Limits
    connection: int
    document: int
    pixels: int

    @classmethod
    def read(cls, message: bytes, descriptors: list[int]) -> Order:
        """The order that the parent wrote."""
        words = json.loads(message)
        return cls(MediaType(words["media_type"]), Limits(**words["limits"]), *descriptors)

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that are the child's own."""
        return [self.connection, self.document, self.pixels]


def _take_orders(control: socket.socket) -> None:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    while True:
        for ready, _ in poll.poll():
            if ready != control.fileno():
                poll.unregister(ready)
                _reap(ready)
                continue
            message, descriptors, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 3)
            if not message:
                return  # the parent is gone, and the children end with us
            child = _fork(Order.read(message, descriptors))
            poll.register(child, select.POLLIN)
            socket.send_fds(control, [b"{}"], [child])


def _fork(order: Order) -> int:
    """Start a child for `order`; its pidfd. Only `_reap` reaps, so the pid is surely its own."""
    pid = os.fork()
    if pid == 0:
        _live(order)
    for descriptor in order.descriptors:
        os.close(descriptor)
    return os.pidfd_open(pid)


def _reap(child: int) -> None:
    os.waitid(os.P_PIDFD, child, os.WEXITED)
    os.close(child)


# The child


def _live(order: Order) -> NoReturn:
    try:
        os.dup2(0, 2)  # /dev/null: what a decoder writes about a document is not for our log
        _close_all_but([0, 1, 2, *order.descriptors])
        with socket.socket(fileno=order.connection) as connection:
            try:
                confine(order)
            except OSError as error:
                connection.send(_refusal(InternalError(f"a child cannot be confined: {error}")))
            else:
                _answer_all(connection, order)
    finally:
        os._exit(0)  # nothing of the zygote's is to be tidied up in a child


def _close_all_but(kept: list[int]) -> None:
    start = 0
    for descriptor in sorted(kept):
        if start < descriptor:  # an empty range at 0 would be all of them
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def confine(order: Order) -> None:
    """Give up for good what a decoder does not need. Raises OSError where that is refused.

    Covered: memory, CPU, writing files and starting processes, by the rlimits; identity, where we
    are root; gaining privileges, being traced, outliving the zygote. Not covered: reading files
    (Landlock), the network and other system calls (seccomp), threads of HEIC's decoder; and where
    we are not root, what processes of one user may do to each other. A further layer goes last.
    The clock is the parent's matter.
    """
    _limit_resources(order)
    _become_nobody()
    # After the identity, whose change would undo the last two
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_DUMPABLE, 0)
    _end_with_parent()


def _limit_resources(order: Order) -> None:
    limits = order.limits
    _limit(resource.RLIMIT_AS, limits.memory_bytes + os.fstat(order.document).st_size)
    # For all pages; `_allow_cpu` gives each its part
    _limit(resource.RLIMIT_CPU, math.ceil(limits.page_seconds) * (PAGES_PER_CHILD + 2))
    _limit(resource.RLIMIT_FSIZE, 0)  # not of the pixels: they are mapped
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    if order.media_type is not MediaType.HEIC:  # its decoder aborts where it gets no thread
        _limit(resource.RLIMIT_NPROC, 0)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)  # who runs us may allow less
    resource.setrlimit(what, (most, most))


def _become_nobody() -> None:
    """Drop root, whom RLIMIT_NPROC would not bind; where we are not root, there is none to drop."""
    if os.geteuid() != 0:
        return
    try:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    except OSError:
        return  # a container's root without that capability has little else to drop


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _end_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_libc = ctypes.CDLL(None, use_errno=True)


def _answer_all(connection: socket.socket, order: Order) -> None:
    """Answer the parent's questions until it hangs up."""
    document = _Document(order)
    while question := connection.recv(MESSAGE_BYTES):
        _allow_cpu(order.limits)
        connection.send(_answer(document, json.loads(question)))


def _allow_cpu(limits: Limits) -> None:
    """Give this answer a page's CPU time, counted from now."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    soft = math.ceil(time.process_time() + limits.page_seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (min(soft, hard), hard))


def _answer(document: _Document, question: dict[str, Any]) -> bytes:
    try:
        if "open" in question:
            return json.dumps({"pages": document.open(question["open"]["password"])}).encode()
        width, height = document.render(question["render"])
        return json.dumps({"width": width, "height": height}).encode()
    except OctavoError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(DocumentTooExpensive("it takes more memory than one document may take"))
    except Exception as error:  # noqa: BLE001 (a fault of ours; the parent shall hear of it)
        return _refusal(InternalError(f"{type(error).__name__} in the renderer"))


def _refusal(error: OctavoError) -> bytes:
    return json.dumps({"error": error.code, "detail": error.detail[:_DETAIL_CHARACTERS]}).encode()


class _Document:
    """The one document of a child, and where its pixels go."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._source: source.Source | None = None

    def open(self, password: str | None) -> int:
        order = self._order
        self._source = source.open_source(
            order.document, order.media_type, limits=order.limits, password=password
        )
        return self._source.pages_total

    def render(self, index: int) -> tuple[int, int]:
        assert self._source is not None
        return self._source.render(index, self._canvas)

    def _canvas(self, width: int, height: int) -> mmap:
        return mmap(self._order.pixels, width * height * BYTES_PER_PIXEL)
