"""The process that children are forked from, and the life of a child.

`nursery` starts it by exec, with an empty environment and one socket, and it imports the decoders
once: a child is then a fork of some milliseconds, not 300 ms of imports. It never sees a byte of a
document: descriptors pass through it, passwords do not. A child gives up what it can, answers for
one document, and ends with its socket.

    zygote → parent    its layers, once: {name: {"active", "detail"}}
    parent → zygote    {"media_type", "limits"} and three descriptors: socket, document, pixels
    zygote → parent    {} and the child's pidfd
    parent → child     {"open": {"password"}}, then {"render": index}, again and again
    child → parent     {"pages"} or {"width", "height"}, or {"error", "detail"}
"""

from __future__ import annotations

import gc
import json
import math
import os
import resource
import select
import socket
import time
from dataclasses import asdict, dataclass
from mmap import ACCESS_COPY, mmap
from typing import Any, NoReturn

from shared.errors import DocumentInvalid, DocumentTooExpensive, InternalError, OctavoError
from shared.media import MediaType
from worker.pipeline import source
from worker.pipeline.confinement import Confinement, Task, end_with_parent
from worker.pipeline.limits import BYTES_PER_PIXEL, DETAIL_CHARACTERS, MESSAGE_BYTES, Limits


def main(control: int) -> None:
    """Fork a child for each order that comes by the socket `control`, until it closes."""
    end_with_parent()
    source.warm_up()
    with socket.socket(fileno=control) as connection:
        confinement = Confinement()
        report = {name: asdict(layer) for name, layer in confinement.report().items()}
        connection.send(json.dumps(report).encode())
        gc.freeze()  # a collection in a child would copy pages that are shared
        _take_orders(connection, confinement)


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


def _take_orders(control: socket.socket, confinement: Confinement) -> None:
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
            child = _fork(Order.read(message, descriptors), confinement)
            poll.register(child, select.POLLIN)
            socket.send_fds(control, [b"{}"], [child])


def _fork(order: Order, confinement: Confinement) -> int:
    """Start a child for `order`; its pidfd. Only `_reap` reaps, so the pid is surely its own."""
    pid = confinement.fork()
    if pid == 0:
        _live(order, confinement)
    for descriptor in order.descriptors:
        os.close(descriptor)
    return os.pidfd_open(pid)


def _reap(child: int) -> None:
    os.waitid(os.P_PIDFD, child, os.WEXITED)
    os.close(child)


# The child


def _live(order: Order, confinement: Confinement) -> NoReturn:
    try:
        os.dup2(0, 2)  # /dev/null: what a decoder writes about a document is not for our log
        _close_all_but([0, 1, 2, *order.descriptors, *confinement.descriptors])
        with socket.socket(fileno=order.connection) as connection:
            try:
                document = _mapped(order.document)
                confinement.put_on(_task(order, document))
            except OSError as error:
                connection.recv(MESSAGE_BYTES)  # who hangs up on a question is not heard
                connection.send(_refusal(InternalError(f"a child cannot be confined: {error}")))
            else:
                _answer_all(connection, _Document(order, document))
    finally:
        os._exit(0)  # nothing of the zygote's is to be tidied up in a child


def _close_all_but(kept: list[int]) -> None:
    start = 0
    for descriptor in sorted(kept):
        if start < descriptor:  # an empty range at 0 would be all of them
            os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _mapped(document: int) -> mmap | None:
    """The bytes of the document, or None where it has none; its descriptor is closed."""
    try:
        size = os.fstat(document).st_size
        return mmap(document, size, access=ACCESS_COPY) if size else None
    finally:
        os.close(document)


def _task(order: Order, document: mmap | None) -> Task:
    return Task(
        order.limits,
        document_bytes=len(document or b""),
        threads=order.media_type is MediaType.HEIC,
    )


def _answer_all(connection: socket.socket, document: _Document) -> None:
    """Answer the parent's questions until it hangs up."""
    while question := connection.recv(MESSAGE_BYTES):
        _allow_cpu(document.order.limits)
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
        return json.dumps(document.render(question["render"])._asdict()).encode()
    except OctavoError as error:
        return _refusal(error)
    except MemoryError:
        return _refusal(DocumentTooExpensive("it takes more memory than one document may take"))
    except Exception as error:  # noqa: BLE001 (a fault of ours; the parent shall hear of it)
        return _refusal(InternalError(f"{type(error).__name__} in the renderer"))


def _refusal(error: OctavoError) -> bytes:
    return json.dumps({"error": error.code, "detail": error.detail[:DETAIL_CHARACTERS]}).encode()


class _Document:
    """The one document of a child, and where its pixels go."""

    def __init__(self, order: Order, content: mmap | None) -> None:
        self.order = order
        self._content = content
        self._source: source.Source | None = None

    def open(self, password: str | None) -> int:
        if self._content is None:
            raise DocumentInvalid("it has no bytes")
        order = self.order
        self._source = source.open_source(
            self._content, order.media_type, limits=order.limits, password=password
        )
        return self._source.pages_total

    def render(self, index: int) -> source.Drawn:
        assert self._source is not None
        return self._source.render(index, self._canvas)

    def _canvas(self, width: int, height: int) -> mmap:
        try:
            return mmap(self.order.pixels, width * height * BYTES_PER_PIXEL)
        except OSError as error:
            raise MemoryError from error  # no fault of the document's bytes
