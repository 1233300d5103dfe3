"""The host with real child processes and the fake engine, all healthy."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from shared.document import FinishReason
from shared.errors import EngineDied, EngineUnavailable, PageUnreadable
from shared.options import Task
from tests.faults import fake_settings, page_image, running
from worker.engine import host as host_module
from worker.engine import life
from worker.engine.errors import ReadingCancelled
from worker.engine.fake import WORDS_A_STEP
from worker.engine.faults import Fault
from worker.engine.host import EngineHost
from worker.engine.inbox import Inbox
from worker.engine.protocol import PageOptions, Read
from worker.engine.reading import Reading, Vitals

PAGE = page_image()
SLOW = page_image(Fault.SLOW)


def fake_text(image: bytes, size: str = "620x877") -> str:
    return f"page {hashlib.sha256(image).hexdigest()[:16]} {size}"


def wait_until(holds: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def test_a_page_goes_in_and_its_recognition_comes_out() -> None:
    with running() as host:
        recognition = host.submit(PAGE, task=Task.MARKDOWN).result(30)

    assert recognition.text == recognition.markdown == fake_text(PAGE)
    assert (recognition.engine, recognition.model) == ("fake", host.model)
    assert recognition.finish_reason is FinishReason.STOP
    assert recognition.blocks[0].box is not None
    assert (recognition.blocks[0].box.x1, recognition.blocks[0].box.y1) == (620, 877)


def test_a_started_host_knows_its_engine() -> None:
    with fake_settings(slots=7), running() as host:
        assert (host.slots, host.model, host.device) == (7, "fake-1", {"device": "none"})
        assert host.pid != os.getpid()
        assert not host.broken


def test_hundreds_of_pages_in_flight_get_each_their_own_answer() -> None:
    pages = [page_image(size=(100 + n, 50)) for n in range(300)]

    with fake_settings(delay_seconds=0.05, slots=100), running() as host:
        readings = [host.submit(page, task=Task.TEXT) for page in pages]
        texts = [reading.result(10).text for reading in readings]

    assert texts == [fake_text(page, f"{100 + n}x50") for n, page in enumerate(pages)]


def test_pages_one_after_the_other_wait_for_nothing() -> None:
    with running() as host:
        begun = time.monotonic()
        for _ in range(50):
            host.submit(PAGE, task=Task.TEXT).result(30)

    assert time.monotonic() - begun < 50 * life.WATCH_SECONDS / 2


def test_many_threads_may_submit_at_once() -> None:
    texts: list[str] = []

    def read(host: EngineHost) -> None:
        texts.extend(host.submit(PAGE, task=Task.TEXT).result(10).text for _ in range(10))

    with running() as host:
        threads = [threading.Thread(target=read, args=(host,)) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert texts == [fake_text(PAGE)] * 320


def test_the_engine_never_holds_more_pages_than_it_has_slots() -> None:
    with fake_settings(delay_seconds=0.3, slots=2), running() as host:
        begun = time.monotonic()
        for reading in [host.submit(PAGE, task=Task.TEXT) for _ in range(6)]:
            reading.result(30)

    assert time.monotonic() - begun >= 3 * 0.3


# Text that is read while it grows


def test_a_glance_shows_the_text_so_far() -> None:
    with fake_settings(delay_seconds=0.6), running() as host:
        reading = host.submit(PAGE, task=Task.TEXT)
        seen = [reading.glance()]
        while not reading.ended:
            seen.append(reading.glance())
            time.sleep(0.01)
        seen.append(reading.glance())

    whole = f"{reading.result(0).text} "
    assert (seen[0], seen[-1]) == ("", whole)
    assert seen == sorted(seen, key=len)
    assert all(whole.startswith(each) for each in seen)


def test_who_looks_later_sees_all_from_the_beginning() -> None:
    with fake_settings(faults="endless"), running() as host:
        page = page_image(Fault.ENDLESS)
        reading = host.submit(page, task=Task.TEXT, max_output_tokens=10**9)
        wait_until(lambda: reading.steps > 5)  # a second's words were read, and nobody was told

        assert reading.glance() == ""
        wait_until(lambda: bool(reading.glance()))
        assert len(reading.glance().split()) > 10 * WORDS_A_STEP
        assert not reading.ended
        reading.cancel()


def test_a_page_that_waits_is_told_when_its_turn_comes() -> None:
    with fake_settings(slots=1, delay_seconds=0.2), running() as host:
        first, waiting = (host.submit(PAGE, task=Task.TEXT) for _ in range(2))
        waiting.glance()
        recognition = waiting.result(30)

    assert waiting.glance().strip() == recognition.text
    assert first.glance() == ""


def test_of_a_page_that_nobody_looks_at_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []
    monkeypatch.setattr(life.Life, "_grow", lambda _, delta: heard.append(delta))
    with running() as host:
        host.submit(PAGE, task=Task.TEXT).result(30)

    assert heard == []


def test_a_glance_changes_nothing_of_what_is_read() -> None:
    with running() as host:
        reading = host.submit(PAGE, task=Task.TEXT)
        reading.glance()
        reading.glance()

        assert reading.result(30).text == fake_text(PAGE)
        assert host.submit(PAGE, task=Task.TEXT).result(30).text == fake_text(PAGE)


def test_a_glance_at_a_page_that_was_read_or_dropped_harms_nobody() -> None:
    with fake_settings(faults="slow"), running() as host:
        read, dropped = host.submit(PAGE, task=Task.TEXT), host.submit(SLOW, task=Task.TEXT)
        read.result(30)
        dropped.cancel()

        assert (read.glance(), dropped.glance()) == ("", "")
        assert host.submit(PAGE, task=Task.TEXT).result(30).text == fake_text(PAGE)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_text_is_the_same_however_it_was_cut(size: int) -> None:
    text = "\u2028ein Käse \U0001f9d0\r\nöxle\rä\n"
    inbox, vitals = Inbox(), Vitals()
    request = Read(1, "c" * 64, PageOptions(task=Task.TEXT))
    reading = Reading(
        request, vitals=vitals, among=None, on_glance=inbox.tell, on_cancel=inbox.cancel
    )
    flight = life._Flight(reading)  # noqa: SLF001 - of a child that cuts as we like
    said = text.encode()
    for at in range(0, len(said), size):
        flight.grow(said[at : at + size])
    inbox.close()

    assert reading.glance() == "\nein Käse \U0001f9d0\nöxle\nä\n"


def test_a_cancelled_page_ends_at_once_and_frees_its_slot() -> None:
    with fake_settings(slots=1, faults="slow", slow_seconds=60), running() as host:
        slow = host.submit(SLOW, task=Task.TEXT)
        behind = host.submit(PAGE, task=Task.TEXT)
        wait_until(lambda: slow.steps > 0)

        slow.cancel()

        with pytest.raises(ReadingCancelled) as caught:
            slow.result(0)
        assert not caught.value.blames
        assert behind.result(20).text == fake_text(PAGE)
        assert host.vitals.deaths == 0


def test_a_page_cancelled_while_it_waits_never_reaches_the_engine() -> None:
    with fake_settings(slots=1, delay_seconds=0.3), running() as host:
        first = host.submit(PAGE, task=Task.TEXT)
        waiting = host.submit(PAGE, task=Task.TEXT)
        last = host.submit(PAGE, task=Task.TEXT)
        waiting.cancel()
        first.result(30)
        last.result(30)

        with pytest.raises(ReadingCancelled):
            waiting.result(0)
        assert waiting.steps == 0


def test_cancelling_a_page_that_was_read_changes_nothing() -> None:
    with running() as host:
        reading = host.submit(PAGE, task=Task.TEXT)
        recognition = reading.result(30)
        reading.cancel()

        assert reading.result(0) == recognition
        host.submit(PAGE, task=Task.TEXT).result(30)


def test_a_reading_that_has_not_ended_makes_the_caller_wait() -> None:
    with fake_settings(delay_seconds=1), running() as host, pytest.raises(TimeoutError):
        host.submit(PAGE, task=Task.TEXT).result(0.01)


def test_the_limit_of_output_ends_a_text_with_finish_reason_length() -> None:
    with fake_settings(faults="endless"), running() as host:
        page = page_image(Fault.ENDLESS)
        recognition = host.submit(page, task=Task.TEXT, max_output_tokens=120).result(30)

    assert recognition.finish_reason is FinishReason.LENGTH
    assert recognition.usage.output_tokens == len(recognition.text.split()) == 120


def test_a_suspect_shares_the_engine_with_no_more_than_it_is_told() -> None:
    with fake_settings(delay_seconds=0.2), running() as host:
        before = host.submit(PAGE, task=Task.TEXT)
        alone = host.submit(PAGE, task=Task.TEXT, among=1)
        after = host.submit(PAGE, task=Task.TEXT)

        before.result(30)
        assert not alone.ended
        alone.result(30)
        assert not after.ended
        after.result(30)


# Progress, which renews leases


def test_a_page_progresses_while_the_engine_works_on_it() -> None:
    with fake_settings(faults="slow"), running() as host:
        reading = host.submit(SLOW, task=Task.TEXT)
        wait_until(reading.progressed)
        wait_until(reading.progressed)


def test_a_waiting_page_progresses_while_the_engine_does() -> None:
    with fake_settings(faults="slow", slots=1), running() as host:
        host.submit(SLOW, task=Task.TEXT)
        waiting = host.submit(PAGE, task=Task.TEXT)
        wait_until(waiting.progressed)
        wait_until(waiting.progressed)

        assert waiting.steps == 0


def test_a_page_in_a_hung_engine_does_not_progress() -> None:
    with fake_settings(faults="slow"), running() as host:
        reading = host.submit(SLOW, task=Task.TEXT)
        wait_until(reading.progressed)

        os.kill(host.pid, signal.SIGSTOP)
        time.sleep(0.3)
        reading.progressed()
        time.sleep(0.5)

        assert not reading.progressed()


# What the child is, and is not


def test_the_child_knows_no_secret_and_dies_first() -> None:
    with pytest.MonkeyPatch.context() as patch, fake_settings(slots=3):
        patch.setenv("OCTAVO_SECRET_KEY", "hush")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
        with running() as host:
            environment = psutil.Process(host.pid).environ()
            score = Path(f"/proc/{host.pid}/oom_score_adj").read_text().strip()

    assert "hush" not in environment.values()
    assert environment["OCTAVO_FAKE_SLOTS"] == "3"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert score == "1000"


def test_the_child_imports_no_queue_no_database_and_no_store() -> None:
    program = (
        "import sys, worker.engine.child, worker.engine.fake, worker.engine.paddle;"
        "print([m for m in ('celery', 'sqlalchemy', 'boto3', 'fastapi') if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )

    assert said.stdout.strip() == "[]"


def test_the_child_dies_with_its_host() -> None:
    program = (
        "import time; from worker.engine.host import EngineHost;"
        "from shared.options import Task; from tests.faults import *;"
        "host = EngineHost('fake', **LIMITS); host.start();"
        "host.submit(page_image(Fault.HANG), task=Task.TEXT);"
        "print('pid', host.pid, flush=True); time.sleep(60)"
    )
    with (
        fake_settings(faults="hang"),
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as worker,
    ):
        assert worker.stdout is not None
        said = next(line for line in worker.stdout if line.startswith(b"pid"))
        child = psutil.Process(int(said.split()[1]))

        worker.kill()

        wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_stopping_the_host_ends_the_child_and_blames_nobody() -> None:
    with fake_settings(faults="slow"), running() as host:
        reading = host.submit(SLOW, task=Task.TEXT)
        wait_until(lambda: reading.steps > 0)
        pid = host.pid

        host.stop()

        with pytest.raises(EngineDied) as caught:
            reading.result(0)
        assert not caught.value.blames
        assert not psutil.pid_exists(pid)
        with pytest.raises(EngineUnavailable) as gone:
            host.submit(PAGE, task=Task.TEXT)
        assert not gone.value.blames
        assert not host.broken


def test_there_must_be_such_an_engine() -> None:
    with pytest.raises(EngineUnavailable, match="no engine nonesuch"):
        EngineHost("nonesuch", page_seconds=1, stall_seconds=1, max_recognition_bytes=1)


def test_an_image_that_no_frame_holds_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "MAX_PAYLOAD_BYTES", 100)

    with running() as host, pytest.raises(PageUnreadable):
        host.submit(PAGE, task=Task.TEXT)


def test_a_host_that_was_frozen_does_not_blame_its_child(monkeypatch: pytest.MonkeyPatch) -> None:
    leap = [0.0]

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return time.monotonic() + leap[0]

    monkeypatch.setattr(life, "time", Clock)
    monkeypatch.setattr(life, "LONGEST_GAP_SECONDS", 0.15)
    limits: dict[str, Any] = {"stall_seconds": 3, "page_seconds": 4}
    with fake_settings(faults="slow", slow_seconds=1), running(**limits) as host:
        reading = host.submit(SLOW, task=Task.TEXT)
        wait_until(lambda: reading.steps > 0)

        leap[0] = 1_000

        assert reading.result(30).text == fake_text(SLOW)
        assert host.vitals.deaths == 0
