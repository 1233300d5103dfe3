"""What the host does when the engine fails, with real child processes that do."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from PIL import Image

from shared.errors import (
    EngineDied,
    EngineUnavailable,
    InternalError,
    OctavoError,
    PageTimeout,
    PageTooLong,
    PageUnreadable,
)
from shared.options import Task
from tests.faults import LIMITS, fake_settings, jpeg, page, page_image, running
from tests.unit.test_engine_host import PAGE, SLOW, fake_text, wait_until
from worker.engine import life, reading, spawn
from worker.engine.errors import ReadingCancelled
from worker.engine.faults import Fault, marked
from worker.engine.host import EngineHost
from worker.engine.inbox import Inbox
from worker.engine.life import Life, LifeEnded, Limits
from worker.engine.protocol import Cancelled, Done, FromChild, PageOptions, Read
from worker.engine.reading import Reading, Vitals
from worker.engine.spawn import Child


@pytest.fixture(autouse=True)
def _short_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of less than a second are not used up by one second in which nothing runs."""
    monkeypatch.setattr(life, "LONGEST_GAP_SECONDS", 0.15)


@contextmanager
def faulty(faults: str, state: Path | None = None, **limits: Any) -> Iterator[EngineHost]:
    """A host whose engine has these faults and is otherwise slow on slow pages for 20 s."""
    with fake_settings(state, faults=f"slow,{faults}", slow_seconds=20), running(**limits) as host:
        yield host


def read(host: EngineHost, fault: Fault | None = None, **options: Any) -> Reading:
    return host.submit(page_image(fault), task=Task.TEXT, **options)


def error_of(reading: Reading, seconds: float = 30) -> OctavoError:
    with pytest.raises(OctavoError) as caught:
        reading.result(seconds)
    return caught.value


def death_of(reading: Reading, seconds: float = 30) -> EngineDied:
    error = error_of(reading, seconds)
    assert isinstance(error, EngineDied)
    return error


IDLE_CHILD = """
import sys
from worker.engine import child
child.serve.__kwdefaults__["idle_check_seconds"] = 0.1
child.main(sys.argv[1], int(sys.argv[2]))
"""

# Death


@pytest.mark.parametrize("fault", [Fault.SEGFAULT, Fault.KILLED, Fault.OUT_OF_MEMORY])
def test_a_page_that_kills_the_engine_is_the_only_suspect(fault: Fault) -> None:
    with faulty(fault) as host:
        neighbours = [host.submit(SLOW, task=Task.TEXT) for _ in range(5)]
        wait_until(lambda: all(neighbour.steps for neighbour in neighbours))

        killer = death_of(read(host, fault))

        assert killer.blames and killer.suspects == 1
        assert killer.retryable and killer.code == "engine_unavailable"
        deaths = [death_of(neighbour) for neighbour in neighbours]
        assert not any(death.blames for death in deaths)
        assert read(host).result(30).text == fake_text(PAGE)


def test_an_engine_that_dies_of_many_pages_together_makes_suspects_of_all() -> None:
    with faulty("poison") as host:
        neighbours = [host.submit(SLOW, task=Task.TEXT) for _ in range(5)]
        wait_until(lambda: all(neighbour.steps for neighbour in neighbours))

        killer = death_of(read(host, Fault.POISON))

        deaths = [killer, *(death_of(neighbour) for neighbour in neighbours)]
        assert all(death.blames and death.suspects == 6 for death in deaths)


def test_what_a_dead_engine_said_last_is_heard_before_it_is_found_dead() -> None:
    inbox, vitals = Inbox(), Vitals()
    with fake_settings(faults="segfault"):
        child = Child("fake")
    life = Life(
        child,
        inbox=inbox,
        limits=Limits(start_seconds=20, cancel_seconds=10, **LIMITS),
        vitals=vitals,
    )
    readings = [reading_of(fault, inbox, vitals) for fault in (Fault.SEGFAULT, None)]
    while life.ready is None:
        life.turn()

    inbox.submit(readings[0])
    life.turn()  # and then the host is busy with something else
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    inbox.submit(readings[1])  # cannot be sent any more
    with pytest.raises(LifeEnded) as caught:
        while True:
            life.turn()
    life.bury(caught.value)
    inbox.close()

    killer, neighbour = map(death_of, readings)
    assert killer.blames and killer.suspects == 1
    assert not neighbour.blames


def reading_of(fault: Fault | None, inbox: Inbox, vitals: Vitals) -> Reading:
    image = page_image(fault)
    request = Read(
        1 if fault else 2,
        hashlib.sha256(image).hexdigest(),
        PageOptions(task=Task.TEXT),
        image=image,
    )
    return Reading(request, vitals=vitals, among=None, on_glance=inbox.tell, on_cancel=inbox.cancel)


@pytest.mark.parametrize(
    ("fault", "status"),
    [("segfault", "SIGSEGV"), ("killed", "SIGKILL"), ("out_of_memory", "exit status 1")],
)
def test_what_an_engine_died_of_is_written_down(fault: str, status: str) -> None:
    with faulty(fault) as host, structlog.testing.capture_logs() as logs:
        death_of(read(host, Fault(fault)))
        wait_until(lambda: any(line["event"] == "engine_died" for line in logs))

    [died] = [line for line in logs if line["event"] == "engine_died"]
    assert (died["status"], died["pages"], died["suspects"]) == (status, 1, 1)


def test_after_kill_9_all_pages_are_released_within_a_second_and_the_next_is_read() -> None:
    with faulty("slow") as host:
        readings = [host.submit(SLOW, task=Task.TEXT) for _ in range(30)]
        wait_until(lambda: all(reading.steps > 1 for reading in readings))
        dead = host.pid

        os.kill(dead, signal.SIGKILL)
        killed = time.monotonic()
        deaths = [death_of(reading) for reading in readings]

        assert time.monotonic() - killed < 1
        assert all(death.blames and death.suspects == 30 for death in deaths)
        assert read(host).result(30).text == fake_text(PAGE)
        assert host.pid != dead
        assert host.vitals.deaths == 1


def test_pages_that_wait_for_a_slot_survive_the_engines_death() -> None:
    with fake_settings(slots=1), faulty("slow") as host:
        held = host.submit(SLOW, task=Task.TEXT)
        waiting = read(host)
        wait_until(lambda: held.steps > 0)

        os.kill(host.pid, signal.SIGKILL)

        assert death_of(held).blames
        assert waiting.result(30).text == fake_text(PAGE)


def test_a_page_that_waits_for_the_engine_to_start_goes_on_all_the_while() -> None:
    with faulty("slow") as host, fake_settings(start_seconds=1):
        os.kill(host.pid, signal.SIGKILL)
        wait_until(lambda: host.vitals.deaths == 1)
        waiting = read(host)

        assert not host.await_ready(0)
        assert waiting.progressed() and waiting.progressed()

        assert host.await_ready(30)
        assert waiting.result(30).text == fake_text(PAGE)


def test_pages_that_wait_are_given_back_when_a_start_fails(tmp_path: Path) -> None:
    with (
        faulty("slow") as host,
        fake_settings(tmp_path, faults="start:1", start_seconds=0.5),
    ):
        os.kill(host.pid, signal.SIGKILL)
        wait_until(lambda: host.vitals.deaths == 1)

        assert not error_of(read(host)).blames
        assert not host.broken
        assert host.await_ready(30)


def test_a_sticky_device_error_costs_one_respawn_and_no_page(tmp_path: Path) -> None:
    with faulty("device_error:1", tmp_path) as host:
        error = death_of(read(host, Fault.DEVICE_ERROR))

        assert error.retryable
        assert read(host, Fault.DEVICE_ERROR).result(30)
        assert host.vitals.deaths == 1


# Standing still


def test_a_hung_engine_is_killed_for_lack_of_progress() -> None:
    with faulty("hang", stall_seconds=0.5) as host:
        begun = time.monotonic()

        death = death_of(read(host, Fault.HANG))

        assert death.blames
        assert 0.4 < time.monotonic() - begun < 10
        assert read(host).result(30).text == fake_text(PAGE)


def test_a_frozen_engine_is_killed_for_lack_of_progress() -> None:
    with faulty("slow", stall_seconds=0.5) as host:
        reading = host.submit(SLOW, task=Task.TEXT)
        wait_until(lambda: reading.steps > 0)

        os.kill(host.pid, signal.SIGSTOP)

        assert death_of(reading, 10).blames
        assert read(host).result(30).text == fake_text(PAGE)


def test_an_idle_engine_is_not_taken_for_a_hung_one() -> None:
    with faulty("slow", stall_seconds=1) as host:
        time.sleep(1.5)

        assert read(host).result(30).text == fake_text(PAGE)
        assert host.vitals.deaths == 0


def test_an_engine_that_idled_has_its_time_to_begin() -> None:
    with faulty("slow", stall_seconds=2) as host:
        time.sleep(2.5)
        os.kill(host.pid, signal.SIGSTOP)
        reading = read(host)
        time.sleep(0.3)
        os.kill(host.pid, signal.SIGCONT)

        assert reading.result(30).text == fake_text(PAGE)
        assert host.vitals.deaths == 0


def test_a_page_that_takes_too_long_ends_and_the_engine_lives_on() -> None:
    with faulty("slow", page_seconds=0.4) as host:
        error = error_of(host.submit(SLOW, task=Task.TEXT))

        assert isinstance(error, PageTimeout)
        assert read(host).result(30).text == fake_text(PAGE)
        assert host.vitals.deaths == 0


def test_an_engine_that_does_not_let_go_of_a_late_page_is_killed() -> None:
    with faulty("hang", page_seconds=0.4, cancel_seconds=0.3) as host:
        late = read(host, Fault.HANG)

        assert isinstance(error_of(late), PageTimeout)
        wait_until(lambda: host.vitals.deaths == 1)
        assert read(host).result(30).text == fake_text(PAGE)


def test_nobody_else_is_blamed_for_a_late_page() -> None:
    with faulty("slow", page_seconds=4, cancel_seconds=0.3) as host:
        late = host.submit(SLOW, task=Task.TEXT)
        wait_until(lambda: late.steps > 4)  # more than half a second, however long it stood still
        neighbour = host.submit(SLOW, task=Task.TEXT)
        wait_until(lambda: neighbour.steps > 0)
        os.kill(host.pid, signal.SIGSTOP)

        assert isinstance(error_of(late), PageTimeout)
        assert not death_of(neighbour).blames


# Wrong words


def test_answers_for_other_pages_are_ignored() -> None:
    with faulty("wrong_answer") as host:
        image = page_image(Fault.WRONG_ANSWER)

        assert host.submit(image, task=Task.TEXT).result(30).text == fake_text(image)
        assert host.vitals.ignored_answers == 2


def test_a_second_answer_is_ignored() -> None:
    with faulty("double_answer") as host:
        reading = read(host, Fault.DOUBLE_ANSWER)
        first = reading.result(30)
        wait_until(lambda: host.vitals.ignored_answers == 1)

        assert reading.result(0) == first
        assert read(host).result(30).text == fake_text(PAGE)


def test_text_that_nobody_can_store_is_cleaned() -> None:
    with faulty("garbage") as host:
        recognition = read(host, Fault.GARBAGE).result(30)

    clean = "nul , escape [2J, surrogate \ufffd, rest"
    assert recognition.text == recognition.markdown == recognition.blocks[0].text == clean


def test_more_text_than_can_be_kept_ends_the_page_and_not_the_engine() -> None:
    with faulty("too_long") as host:
        assert isinstance(error_of(read(host, Fault.TOO_LONG)), PageTooLong)
        assert read(host).result(30).text == fake_text(PAGE)
        assert host.vitals.deaths == 0


def test_a_stream_that_does_not_stop_is_stopped() -> None:
    with faulty("endless", max_recognition_bytes=2_000) as host:
        endless = read(host, Fault.ENDLESS, max_output_tokens=10**9)
        endless.glance()

        assert isinstance(error_of(endless), PageTooLong)
        assert 1_000 < len(endless.glance()) <= 2_000
        assert read(host).result(30).text == fake_text(PAGE)
        assert host.vitals.deaths == 0


def test_of_a_long_text_a_glance_shows_the_beginning() -> None:
    with faulty("endless") as host:
        endless = read(host, Fault.ENDLESS, max_output_tokens=20_000)
        endless.glance()
        text = endless.result(10).text

    assert len(text) > reading.MOST_CHARACTERS
    assert endless.glance() == text[: reading.MOST_CHARACTERS]


def test_told_text_that_nobody_can_store_is_cleaned() -> None:
    with fake_settings(delay_seconds=0.2), faulty("garbage") as host:
        garbage = read(host, Fault.GARBAGE)
        garbage.glance()
        garbage.result(30)

    assert garbage.glance().split() == [
        "nul",
        ",",
        "escape",
        "[2J,",
        "surrogate",
        "\ufffd" * 3 + ",",
        "rest",
    ]


def test_an_answer_that_is_no_recognition_is_an_internal_error_of_its_page() -> None:
    with faulty("nonsense") as host:
        assert isinstance(error_of(read(host, Fault.NONSENSE)), InternalError)
        assert host.vitals.deaths == 0


def test_a_page_that_the_child_drops_unasked_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receive = Child.receive

    def dropping(child: Child) -> Iterator[FromChild]:
        for message in receive(child):
            yield Cancelled(message.id) if isinstance(message, Done) else message

    monkeypatch.setattr(Child, "receive", dropping)
    with faulty("slow") as host:
        assert isinstance(error_of(read(host)), ReadingCancelled)


def test_an_unreadable_page_ends_itself_only() -> None:
    with faulty("unreadable") as host:
        assert isinstance(error_of(read(host, Fault.UNREADABLE)), PageUnreadable)
        assert isinstance(error_of(host.submit(b"no image", task=Task.TEXT)), PageUnreadable)
        assert host.vitals.deaths == 0


# The start


@pytest.mark.parametrize("fault", [Fault.START, Fault.GOLDEN])
def test_an_engine_that_fails_to_start_is_tried_again(fault: Fault, tmp_path: Path) -> None:
    with faulty(f"{fault}:1", tmp_path) as host:
        assert read(host).result(30).text == fake_text(PAGE)


@pytest.mark.parametrize(
    ("fault", "words"), [("start", "the device is not there"), ("golden", "golden page as 'mis")]
)
def test_an_engine_that_never_starts_is_broken_and_says_why(fault: str, words: str) -> None:
    with fake_settings(faults=fault):
        host = EngineHost("fake", **LIMITS)
        with pytest.raises(EngineUnavailable, match=words):
            host.start()

    assert host.broken
    with pytest.raises(EngineUnavailable):
        read(host)
    host.stop()


def test_an_engine_that_hangs_at_its_start_is_killed() -> None:
    # Broken after three such starts: the limit is shorter than Python's own start.
    host = EngineHost("fake", **LIMITS, start_seconds=0.01)

    with pytest.raises(EngineUnavailable):
        host.start()

    host.stop()


def test_an_engine_that_misreads_its_golden_page_after_a_respawn_gets_no_pages(
    tmp_path: Path,
) -> None:
    with faulty("golden:1+", tmp_path) as host:
        assert read(host).result(30).text == fake_text(PAGE)

        os.kill(host.pid, signal.SIGKILL)
        wait_until(lambda: host.vitals.deaths == 1)
        waiting = read(host)

        assert not error_of(waiting).blames
        wait_until(lambda: host.broken)


def test_an_engine_that_turns_sick_while_it_idles_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spawn, "CHILD", ("-c", IDLE_CHILD))
    with faulty("golden:2+", tmp_path) as host:
        wait_until(lambda: host.broken)

        assert host.vitals.deaths == 1


def test_a_crash_loop_ends_and_releases_who_waits() -> None:
    with faulty("slow") as host, fake_settings(faults="start"):
        held = host.submit(SLOW, task=Task.TEXT)
        wait_until(lambda: held.steps > 0)

        os.kill(host.pid, signal.SIGKILL)
        death_of(held)
        waiting = read(host)

        error = error_of(waiting)
        assert isinstance(error, EngineUnavailable) and not error.blames
        wait_until(lambda: host.broken)


def test_nobody_waits_for_ever_when_the_supervisor_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    failures: list[object] = []
    monkeypatch.setattr("threading.excepthook", failures.append)
    with faulty("slow") as host:
        held = host.submit(SLOW, task=Task.TEXT)
        wait_until(lambda: held.steps > 0)
        monkeypatch.setattr("worker.engine.life.Life.turn", fail)

        assert not death_of(held).blames
        wait_until(lambda: host.broken)
        assert len(failures) == 1


# Marks


@pytest.mark.parametrize("fault", Fault)
def test_a_mark_survives_jpeg_and_scaling(fault: Fault) -> None:
    for scale in (0.5, 0.73, 1, 2.08):
        marked_page = page(fault, text="Some text")
        size = int(marked_page.width * scale), int(marked_page.height * scale)
        scaled = marked_page.resize(size, Image.Resampling.BILINEAR)

        assert marked(jpeg(scaled, quality=75)) is fault


def test_pages_without_a_mark_have_none() -> None:
    png = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(png, "PNG")

    assert marked(PAGE) is None
    assert marked(png.getvalue()) is None
    assert marked(jpeg(Image.new("RGB", (300, 300), (255, 0, 255)))) is None
