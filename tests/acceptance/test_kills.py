"""kill -9 of any one process while a job runs: the job still ends right."""

import io
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from client.errors import ConnectionFailed
from client.models import Job
from client.sdk import Octavo
from deploy.local import Platform
from tests import documents

PAGES = 120


def child_of(worker: str, marker: str) -> Callable[[Platform], int]:
    """Finds the child process of a worker whose command line holds `marker`."""

    def find(platform: Platform) -> int:
        children = psutil.Process(platform.pids()[worker]).children(recursive=True)
        return next(child.pid for child in children if marker in " ".join(child.cmdline()))

    return find


def process(name: str) -> Callable[[Platform], int]:
    return lambda platform: platform.pids()[name]


VICTIMS = {
    "gateway": process("gateway"),
    "dispatcher": process("dispatcher"),
    "sweeper": process("sweeper"),
    "cpu worker": process("cpu-worker"),
    "engine worker": process("engine-worker"),
    "engine": child_of("engine-worker", "worker.engine.child"),
    "renderer": child_of("cpu-worker", "zygote"),
    "postgres": process("postgres"),
    "valkey": process("valkey"),
    "seaweedfs": process("seaweedfs"),
}


@pytest.mark.parametrize("victim", VICTIMS)
def test_a_job_survives_the_death_of(victim: str, octavo: Octavo, fake_platform: Platform) -> None:
    job = octavo.submit(io.BytesIO(documents.pdf(pages=PAGES)), name="a.pdf")
    until_some_pages_are_read(octavo, job)

    os.kill(VICTIMS[victim](fake_platform), signal.SIGKILL)

    job = octavo.wait(job.id, timeout=90)
    assert job.status == "succeeded", job.error
    pages = octavo.document(job.id).pages
    assert [page.page for page in pages] == list(range(1, PAGES + 1))
    assert len({page.text for page in pages}) == PAGES


def test_a_gateway_that_dies_with_an_upload_makes_one_job_in_the_end(
    octavo: Octavo, fake_platform: Platform, document: Path
) -> None:
    """Killed while the document comes in; the client sends it again under its key."""
    document.write_bytes(documents.png() + bytes(8 * 1024**2))
    before = {job.id for job in octavo.jobs()}
    struck = threading.Event()

    def kill_half_way(sent_bytes: int) -> None:
        if sent_bytes > 4 * 1024**2 and not struck.is_set():
            struck.set()
            os.kill(fake_platform.pids()["gateway"], signal.SIGKILL)

    job = None
    while job is None:
        with suppress(ConnectionFailed):  # while the gateway starts anew
            job = octavo.submit(document, idempotency_key="one", on_bytes=kill_half_way)

    assert struck.is_set()
    assert octavo.wait(job.id, timeout=60).status == "succeeded"
    assert {one.id for one in octavo.jobs()} - before == {job.id}


def until_some_pages_are_read(octavo: Octavo, job: Job) -> None:
    for seen in octavo.watch(job.id):
        if seen.pages.succeeded >= 5:
            assert seen.pages.succeeded < PAGES
            return
