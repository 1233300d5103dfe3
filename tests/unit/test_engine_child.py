"""The child's side: its loop, its steps, and an engine that turns sick while it idles."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from shared.options import Task
from tests.faults import page_image
from worker.engine import golden
from worker.engine.child import Connection, HostGone, serve
from worker.engine.fake import FakeEngine, FaultBook
from worker.engine.faults import Fault
from worker.engine.golden import GoldenPageMisread
from worker.engine.line_engine import LineEngine
from worker.engine.protocol import (
    Cancel,
    Cancelled,
    Delta,
    Done,
    FromChild,
    FromHost,
    PageOptions,
    Read,
    Tell,
    Working,
    encode,
    from_child,
)

PAGE = page_image()


class Host:
    """The other end of a socket pair, talking by hand."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._decoder = from_child()
        self._heard: list[FromChild] = []

    def say(self, message: FromHost) -> None:
        self._socket.sendall(b"".join(encode(message)))

    def hear(self) -> FromChild:
        while not self._heard:
            self._heard += self._decoder.feed(self._socket.recv(65536))
        return self._heard.pop(0)

    def leave(self) -> None:
        self._socket.close()


@pytest.fixture
def ends() -> Iterator[tuple[Host, Connection]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    with ours, theirs:
        yield Host(ours), Connection(theirs)


def fake(faults: str = "", slots: int = 4, slow_seconds: float = 60) -> FakeEngine:
    book = FaultBook(faults, None)
    return FakeEngine(slots=slots, delay_seconds=0, slow_seconds=slow_seconds, faults=book)


def request(page_id: int, image: bytes = PAGE) -> Read:
    return Read(page_id, "c" * 64, PageOptions(task=Task.TEXT), image=image)


def served(engine: FakeEngine, connection: Connection, seconds: float = 60) -> threading.Thread:
    def run() -> None:
        with pytest.raises(HostGone):
            serve(engine, connection, idle_check_seconds=seconds)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_page_is_named_before_it_is_touched(ends: tuple[Host, Connection]) -> None:
    host, connection = ends
    child = served(fake(), connection)

    host.say(request(7))

    assert host.hear() == Working((7,))
    answer = host.hear()
    assert isinstance(answer, Done)
    assert (answer.id, answer.checksum) == (7, "c" * 64)
    host.leave()
    child.join()


def test_a_cancelled_page_is_dropped_between_two_steps(ends: tuple[Host, Connection]) -> None:
    host, connection = ends
    engine = fake("slow")
    child = served(engine, connection)
    host.say(request(1, page_image(Fault.SLOW)))
    assert host.hear() == Working((1,))

    host.say(Cancel(1))
    said = [host.hear()]
    while not isinstance(said[-1], Cancelled):
        said.append(host.hear())

    assert not engine.busy
    host.leave()
    child.join()


def test_a_page_is_told_from_when_that_is_asked_for(ends: tuple[Host, Connection]) -> None:
    host, connection = ends
    child = served(fake("slow", slow_seconds=0.3), connection)
    host.say(request(1, page_image(Fault.SLOW)))
    assert host.hear() == Working((1,))

    host.say(Tell(1))
    host.say(Tell(1))
    host.say(Tell(99))
    said = [host.hear()]
    while not isinstance(said[-1], Done):
        said.append(host.hear())

    deltas = [one for one in said if isinstance(one, Delta)]
    assert all(delta.text for delta in deltas)
    assert {delta.id for delta in deltas} == {1}
    assert b"".join(delta.text for delta in deltas).split() == [b"page", b"c" * 16, b"620x877"]
    host.leave()
    child.join()


def test_an_engine_that_knows_no_text_before_the_end_says_none() -> None:
    engine = LineEngine(name="lines", model="1", find_lines=lambda _: [])
    engine.submit(request(1))

    engine.tell(1)
    said = list(engine.step())

    assert not any(isinstance(event, Delta) for event in said)
    assert isinstance(said[-1], Done)


def test_cancelling_a_page_that_is_not_held_is_answered(ends: tuple[Host, Connection]) -> None:
    host, connection = ends
    child = served(fake(), connection)

    host.say(Cancel(99))

    assert host.hear() == Cancelled(99)
    host.leave()
    child.join()


def test_a_message_that_has_begun_is_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frame = b"".join(encode(request(1)))
        ours.sendall(frame[:1000])
        late = threading.Timer(0.2, lambda: ours.sendall(frame[1000:]))
        late.start()

        assert Connection(theirs).receive(0) == [request(1)]
        late.join()


def test_where_nothing_waits_nothing_is_waited_for(ends: tuple[Host, Connection]) -> None:
    _, connection = ends
    begun = time.monotonic()

    assert connection.receive(0) == []
    assert time.monotonic() - begun < 5


def test_an_engine_that_turns_sick_while_it_idles_ends(ends: tuple[Host, Connection]) -> None:
    _, connection = ends
    engine = fake("golden")

    with pytest.raises(GoldenPageMisread, match="misread"):
        serve(engine, connection, idle_check_seconds=0.05)


def test_a_sound_engine_idles_on_and_the_host_hears_nothing_of_its_golden_page(
    ends: tuple[Host, Connection],
) -> None:
    host, connection = ends
    child = served(fake(), connection, seconds=0.02)
    time.sleep(0.2)

    host.say(request(3))

    assert host.hear() == Working((3,))
    host.leave()
    child.join()


def test_the_golden_page_leaves_nothing_behind() -> None:
    engine = fake()

    golden.check(engine)

    assert not engine.busy


def test_an_engine_that_fails_on_the_golden_page_misreads_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(golden, "image", lambda: b"no image")

    with pytest.raises(GoldenPageMisread, match="no JPEG or PNG"):
        golden.check(fake())
