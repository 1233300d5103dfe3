"""The processes that hostile documents are opened in: what they have, and what ends them."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
from PIL import Image

from shared.errors import DependencyUnavailable, DocumentInvalid, DocumentTooExpensive
from shared.media import MediaType
from tests import documents
from worker.pipeline import render, sandbox
from worker.pipeline.limits import PAGES_PER_CHILD
from worker.pipeline.nursery import Zygote
from worker.pipeline.render import Document, Limits, open_document
from worker.pipeline.sandbox import Child, ChildLied, ChildLost, open_child

LIMITS = Limits(
    max_pages=2_000,
    max_page_pixels=4_000_000,
    max_side_pixels=20_000,
    min_side_pixels=16,
    max_side_ratio=100,
    render_dpi=72,
    memory_bytes=1024**3,
    page_seconds=10,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="a child's files are root's to see")


def opened(
    document: bytes, media_type: MediaType = MediaType.PDF, *, limits: Limits = LIMITS
) -> Document:
    with documents.file_of(document) as file:
        return open_document(file, media_type, limits=limits)


def zygote() -> psutil.Process:
    """The one zygote of this process; raises ValueError where there is none."""
    children = psutil.Process().children()
    [process] = [child for child in children if "worker.pipeline.zygote" in _command(child)]
    return process


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # or a zombie
        return ""


def only_child() -> psutil.Process:
    """The one child there is, once those of earlier tests that were killed are gone."""
    assert eventually(lambda: len(zygote().children()) == 1)
    [process] = zygote().children()
    return process


def eventually(condition: Callable[[], bool], *, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess, ValueError):
            if condition():
                return True
        time.sleep(0.01)
    return False


def descriptors(process: int | str = "self") -> dict[int, str]:
    """What each open descriptor of a process leads to."""
    entries = Path(f"/proc/{process}/fd").iterdir()
    found = {}
    for entry in entries:
        with suppress(FileNotFoundError):  # the one that lists them
            found[int(entry.name)] = str(entry.readlink())
    return found


def is_busy(pid: int) -> bool:
    return psutil.Process(pid).cpu_times().user > 0.1


def is_gone(pid: int) -> bool:
    """Whether nothing is left of the process, not even a zombie."""
    return not psutil.pid_exists(pid)


def is_dead(pid: int) -> bool:
    """Whether the process has ended; an orphan's zombie is for the machine's first process."""
    return is_gone(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


# What ends a child


def test_a_closed_document_leaves_no_process_behind() -> None:
    for _ in range(3):
        with opened(documents.pdf(1)) as document:
            document.render(0)
            child = only_child().pid

        assert eventually(partial(is_gone, child))


def test_a_refused_document_leaves_no_process_behind() -> None:
    with pytest.raises(DocumentInvalid):
        opened(b"%PDF-1.7 and no more")

    assert eventually(lambda: zygote().children() == [])


def test_closing_twice_does_nothing() -> None:
    document = opened(documents.pdf(1))
    document.close()
    document.close()


def test_documents_leave_no_descriptor_open() -> None:
    opened(documents.pdf(1)).close()
    assert eventually(lambda: zygote().children() == [])
    ours, zygotes = descriptors(), descriptors(zygote().pid)

    for _ in range(5):
        opened(documents.pdf(1)).close()
        with pytest.raises(DocumentInvalid):
            opened(b"nothing")

    assert descriptors() == ours
    assert eventually(lambda: descriptors(zygote().pid) == zygotes)


@pytest.fixture
def every_death_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """As that of a child which its document made too expensive."""
    monkeypatch.setattr(render, "SOON_SECONDS", 0)


def test_a_child_killed_by_somebody_else_is_no_pages_failure() -> None:
    with opened(documents.pdf(3)) as document:
        for index in range(3):
            only_child().kill()
            document.render(index)


def test_a_child_that_dies_late_is_the_pages_failure_and_the_next_page_is_read(
    every_death_is_late: None,
) -> None:
    with opened(documents.pdf(3)) as document:
        document.render(0)
        only_child().kill()

        with pytest.raises(DocumentTooExpensive):
            document.render(1)
        document.render(2)


def test_after_three_lost_children_there_is_no_fourth(every_death_is_late: None) -> None:
    with opened(documents.pdf(9)) as document:
        for index in range(3):
            document.render(index)
            only_child().kill()
            with pytest.raises(DocumentTooExpensive):
                document.render(index)

        with pytest.raises(DocumentTooExpensive, match="3 pages"):
            document.render(5)
        assert eventually(lambda: zygote().children() == [])


def test_a_child_that_is_refused_memory_says_so_and_lives() -> None:
    drawing = documents.saved(Image.new("1", (6_000, 6_000)), "PNG")
    limits = replace(LIMITS, max_page_pixels=40_000_000, memory_bytes=120 * 1024**2)

    with opened(drawing, MediaType.PNG, limits=limits) as document:
        child = only_child()
        with pytest.raises(DocumentTooExpensive):
            document.render(0)
        assert only_child() == child


def test_a_child_that_does_not_answer_is_killed_by_the_clock() -> None:
    with opened(documents.pdf(2), limits=replace(LIMITS, page_seconds=2)) as document:
        child = only_child()
        child.suspend()

        with pytest.raises(DocumentTooExpensive, match=r"2\.8 s"):
            document.render(0)
        assert eventually(lambda: is_gone(child.pid))
        document.render(1)


def test_a_child_is_replaced_before_it_has_kept_too_much() -> None:
    with opened(documents.pdf(PAGES_PER_CHILD + 1)) as document:
        first = only_child().pid
        for index in range(PAGES_PER_CHILD):
            document.render(index)
            assert only_child().pid == first

        document.render(PAGES_PER_CHILD)
        assert eventually(lambda: only_child().pid != first)


# What ends a zygote


def test_a_killed_zygote_is_nobodys_failure() -> None:
    with opened(documents.pdf(3)) as document:
        for index in range(3):
            killed, child = zygote(), only_child().pid
            killed.kill()
            assert eventually(partial(is_dead, child))
            document.render(index)
            assert zygote() != killed

        for index in range(3):
            document.render(index)


def test_children_end_with_their_zygote() -> None:
    with opened(documents.spinning_pdf()) as document, ThreadPoolExecutor(1) as threads:
        rendering = threads.submit(document.render, 0)
        for _ in range(2):  # it is tried once more
            assert eventually(lambda: is_busy(only_child().pid), seconds=20)
            child = only_child().pid
            zygote().kill()
            assert eventually(partial(is_dead, child))

        with pytest.raises(DependencyUnavailable):
            rendering.result()


WORKER = """
import sys, time
from tests import documents
from tests.unit.test_sandbox import only_child, opened, zygote
document = opened(documents.pdf(1))
print("pids", zygote().pid, only_child().pid, flush=True)
time.sleep(60)
"""


def test_zygote_and_children_end_with_a_killed_worker() -> None:
    with subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        # Before it the log says what the host does not allow.
        line = next(line for line in worker.stdout if line.startswith(b"pids "))
        zygote_pid, child_pid = map(int, line.split()[1:])
        assert not is_gone(zygote_pid)
        worker.kill()

    assert eventually(lambda: is_dead(zygote_pid) and is_dead(child_pid))


def test_the_zygote_outlives_the_thread_that_first_needed_it() -> None:
    with suppress(ValueError):
        zygote().kill()
    thread = threading.Thread(target=lambda: opened(documents.pdf(1)).close())
    thread.start()
    thread.join()
    started = zygote()
    time.sleep(0.1)

    opened(documents.pdf(1)).close()

    assert zygote() == started


def test_a_fork_of_the_worker_has_a_zygote_of_its_own() -> None:
    with opened(documents.pdf(2)) as document:
        pid = os.fork()
        if pid == 0:
            _exit_with_number_of_zygotes()
        _, status = os.waitpid(pid, 0)
        document.render(0)

    assert os.waitstatus_to_exitcode(status) == 1


def _exit_with_number_of_zygotes() -> NoReturn:
    number = -1
    try:
        with opened(documents.pdf(1)) as document:
            document.render(0)
            number = len(psutil.Process().children())
    finally:
        os._exit(number)


# Several at once


def test_threads_have_documents_at_once() -> None:
    def widths(pages: int) -> set[int]:
        with opened(documents.pdf_with_sizes(*[(100 + pages, 200)] * pages)) as document:
            return {document.render(index).width for index in range(document.pages_total)}

    counts = [3, 9, 5, 7, 4, 8]
    with ThreadPoolExecutor(len(counts)) as threads:
        assert list(threads.map(widths, counts)) == [{100 + count} for count in counts]


def test_a_bomb_in_one_thread_does_not_disturb_another() -> None:
    limits = replace(LIMITS, memory_bytes=160 * 1024**2)

    def bomb() -> None:
        with opened(documents.form_bomb_pdf(), limits=limits) as document:
            document.render(0)

    with ThreadPoolExecutor(1) as threads, opened(documents.pdf(20)) as document:
        ended = threads.submit(bomb)
        for index in range(20):
            document.render(index)
        with pytest.raises(DocumentTooExpensive):
            ended.result()


# What a child has


def test_no_secret_is_in_the_environment_of_a_zygote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCTAVO_SECRET_KEY", "it must not be seen by a decoder")
    with suppress(ValueError):
        zygote().kill()

    with opened(documents.pdf(1)):
        assert set(zygote().environ()) <= {"LC_CTYPE"}  # which Python sets itself


def test_a_zygote_inherits_no_descriptor() -> None:
    with suppress(ValueError):
        zygote().kill()
    with documents.file_of(b"the worker's own") as file:
        os.set_inheritable(file.fileno(), True)  # noqa: FBT003 (positional only)
        with opened(documents.pdf(1)):
            links = descriptors(zygote().pid)

    assert [links.pop(number) for number in (0, 1)] == ["/dev/null"] * 2
    del links[2]  # the worker's log
    assert len(links) == 3, links  # its socket, the child's pidfd, the rules of Landlock


@as_root
def test_a_child_has_its_socket_its_document_and_its_pixels_only() -> None:
    with opened(documents.pdf(1)), opened(documents.pdf(1)):
        links = descriptors(zygote().children()[-1].pid)

    assert [links.pop(number) for number in (0, 1, 2)] == ["/dev/null"] * 3
    kinds = {link.partition(":")[0] for link in links.values()}
    assert len(set(links.values())) == 3  # some twice, since a mapping has a descriptor too
    assert {"socket", "/memfd"} < kinds


@as_root
def test_a_child_of_root_has_a_uid_that_nobody_else_has() -> None:
    with opened(documents.pdf(1)):
        [uid] = set(only_child().uids()) | set(only_child().gids())

    assert uid in range(60_578, 61_184)
    assert uid not in {user.pw_uid for user in pwd.getpwall()}


@as_root
def test_a_child_is_limited_even_where_its_pages_are_not() -> None:
    with opened(documents.pdf(1)):
        limits = Path(f"/proc/{only_child().pid}/limits").read_text()

    seconds = int(LIMITS.page_seconds) * (PAGES_PER_CHILD + 2)
    assert re.search(rf"Max cpu time +\d+ +{seconds} ", limits)
    assert re.search(r"Max core file size +0 +0 ", limits)


def test_a_child_ends_with_its_cpu_time_even_where_nobody_watches() -> None:
    limits = replace(LIMITS, page_seconds=1)
    with documents.file_of(documents.spinning_pdf()) as file:
        child = open_child(file.fileno(), MediaType.PDF, limits=limits, password=None)
    child.connection.settimeout(60)
    began = time.monotonic()

    with closing(child), pytest.raises(ChildLost, match="memory or time"):
        child.render(0)

    assert time.monotonic() - began < 45  # the limit for all of its pages is 52


# What a child says


@pytest.fixture(scope="module")
def living_zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@contextmanager
def liar(zygote: Zygote, answer: bytes) -> Iterator[tuple[Child, subprocess.Popen[bytes]]]:
    """A child that has already answered, whatever it will be asked, and its process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    process = subprocess.Popen(["sleep", "60"])
    pixels = sandbox.sealed_memory(300 * 300 * 3)
    child = Child(
        ours, process=os.pidfd_open(process.pid), pixels=pixels, limits=LIMITS, zygote=zygote
    )
    with process, theirs, closing(child):
        theirs.send(answer)
        yield child, process


@pytest.mark.parametrize(
    "answer",
    [
        b'{"width": 301, "height": 300, "is_grey": false}',  # more than there is memory for
        b'{"width": 20000, "height": 20000, "is_grey": false}',
        b'{"width": 9223372036854775807, "height": 9223372036854775807, "is_grey": false}',
        b'{"width": 8, "height": 300, "is_grey": false}',
        b'{"width": -300, "height": -300, "is_grey": false}',
        b'{"width": 300.0, "height": 300, "is_grey": false}',
        b'{"width": "300", "height": 300, "is_grey": false}',
        b'{"width": true, "height": 300, "is_grey": false}',
        b'{"width": 301, "height": 300, "is_grey": true}',
        b'{"width": 300, "height": 300, "is_grey": 1}',
        b'{"width": 300, "height": 300}',
        b'{"width": 300, "height": 300, "is_grey": false, "stride": 1}',
        b'{"pages": 3}',
        b'{"error": 5, "detail": ""}',
        b"[]",
        b"null",
        b"[" * 10_000,
        b"\xff\xfe",
        b'{"width": 300, "height": 300, "is_grey": false, "x": "' + b"x" * 30_000 + b'"}',
    ],
    ids=range(19),
)
def test_a_child_that_lies_about_a_page_is_killed(answer: bytes, living_zygote: Zygote) -> None:
    with liar(living_zygote, answer) as (child, process):
        with pytest.raises(ChildLied):
            child.render(0)

        assert process.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize(("is_grey", "mode"), [("false", "RGB"), ("true", "L")])
def test_a_child_that_tells_the_truth_is_not(
    is_grey: str, mode: str, living_zygote: Zygote
) -> None:
    answer = f'{{"width": 300, "height": 300, "is_grey": {is_grey}}}'
    with liar(living_zygote, answer.encode()) as (child, process):
        page = child.render(0)

        assert (page.size, page.mode) == ((300, 300), mode)

        assert process.poll() is None


@pytest.mark.parametrize("answer", [b'{"pages": -1}', b'{"pages": 1e300}', b'{"width": 9}'])
def test_a_child_that_lies_about_its_document_is_killed(
    answer: bytes, living_zygote: Zygote
) -> None:
    with liar(living_zygote, answer) as (child, process):
        with pytest.raises(ChildLied):
            child.open(None)

        assert process.wait(5) == -signal.SIGKILL


def test_a_child_that_hangs_up_is_lost(living_zygote: Zygote) -> None:
    with liar(living_zygote, b"") as (child, _), pytest.raises(ChildLost):
        child.render(0)


def test_what_a_child_says_of_an_error_is_text_and_no_more(living_zygote: Zygote) -> None:
    answer = json.dumps({"error": "dependency_unavailable", "detail": "a\x1b[2Jb\u202ec\n"})

    with liar(living_zygote, answer.encode()) as (child, _), pytest.raises(DocumentInvalid) as told:
        child.render(0)

    assert told.value.detail == "a[2Jbc"
