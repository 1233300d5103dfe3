from __future__ import annotations

import random

import pytest

from shared.options import Task
from worker.engine import protocol
from worker.engine.protocol import (
    Cancel,
    Cancelled,
    Delta,
    Done,
    Failed,
    FromChild,
    FromHost,
    PageOptions,
    ProtocolError,
    Read,
    Ready,
    Tell,
    Tick,
    Working,
    encode,
    from_child,
    from_host,
)

OPTIONS = PageOptions(
    task=Task.MARKDOWN, mode="gundam", prompt="Read.", languages=("en", "de"), max_output_tokens=9
)
FROM_HOST: list[FromHost] = [
    Read(7, "c" * 64, OPTIONS, image=b"\xff\xd8 a page"),
    Read(8, "d" * 64, PageOptions(task=Task.TEXT)),
    Tell(7),
    Cancel(7),
]
FROM_CHILD: list[FromChild] = [
    Ready("fake", "fake-1", 64, {"device": "none"}),
    Working((1, 2, 3)),
    Tick(12, (1, 2)),
    Delta(1, "wörds".encode()),
    Done(1, "c" * 64, b"{}"),
    Failed(2, "page_unreadable", "broken"),
    Cancelled(3),
]


def frame(header: bytes, payload: bytes = b"") -> bytes:
    lengths = len(header).to_bytes(4, "big") + len(payload).to_bytes(4, "big")
    return lengths + header + payload


@pytest.mark.parametrize("size", [1, 2, 7, 64, 10_000])
def test_messages_arrive_however_they_were_cut(size: int) -> None:
    said = b"".join(part for m in FROM_CHILD for part in encode(m))
    heard: list[FromChild] = []
    decoder = from_child()

    for start in range(0, len(said), size):
        heard += decoder.feed(said[start : start + size])

    assert heard == FROM_CHILD
    assert not decoder.is_midway


def test_the_host_is_understood_too() -> None:
    said = b"".join(part for message in FROM_HOST for part in encode(message))

    assert list(from_host().feed(said)) == FROM_HOST


def test_an_image_is_not_copied_to_be_sent() -> None:
    image = b"pixels" * 1000

    _, payload = encode(Read(1, "c", OPTIONS, image=image))

    assert payload is image


def test_a_begun_frame_is_known_to_be_midway() -> None:
    decoder = from_child()

    assert list(decoder.feed(frame(b'{"id":1,"kind":"cancelled"}')[:-1])) == []
    assert decoder.is_midway


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\0" * 8,  # no header
        frame(b"no json"),
        frame(b"{}"),
        frame(b'{"kind":"unknown"}'),
        frame(b'{"id":1,"kind":"cancel"}'),  # the host's word, not the child's
        frame(b'{"id":"1","kind":"cancelled"}'),  # a string is no number
        frame(b'{"id":1,"kind":"cancelled","more":1}'),
        frame(b'{"id":1,"kind":"cancelled"}', b"bytes that nobody asked for"),
        frame(b"[" * 100_000),
        (protocol.MAX_HEADER_BYTES + 1).to_bytes(4, "big") + bytes(4),
        bytes(3) + b"\1" + (protocol.MAX_PAYLOAD_BYTES + 1).to_bytes(4, "big"),
    ],
)
def test_what_is_no_message_is_a_protocol_error(nonsense: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(from_child().feed(nonsense))


def test_random_bytes_are_protocol_errors_or_unfinished() -> None:
    chance = random.Random(3)  # noqa: S311 - seeded
    for _ in range(2_000):
        decoder = from_child()
        try:
            heard = list(decoder.feed(chance.randbytes(200)))
        except ProtocolError:
            continue
        assert heard == []


def test_too_much_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_PAYLOAD_BYTES", 10)

    with pytest.raises(ProtocolError):
        encode(Done(1, "c", b"eleven byte"))
