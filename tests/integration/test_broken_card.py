"""A card that is beyond help: its worker gives back what it holds and goes, the others work on."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from shared.db import transaction
from shared.models import Job
from tests.factory import make_readable
from tests.faults import fake_settings, page_image
from tests.unit.test_engine_host import wait_until
from worker.dispatcher import Dispatcher
from worker.engine.faults import Fault

PROGRAM = [sys.executable, "-m", "deploy.processes", "worker", "engine", "--engine", "fake"]


@contextmanager
def worker(**faults: object) -> Iterator[subprocess.Popen[bytes]]:
    """An engine worker, once it is ready."""
    with fake_settings(**faults):  # type: ignore[arg-type]
        process = subprocess.Popen(
            PROGRAM, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith(b"ready")
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def dispatching() -> Iterator[None]:
    stop = threading.Event()
    running = threading.Thread(target=Dispatcher().run, args=(stop,))
    running.start()
    yield
    stop.set()
    running.join()


def rows(query: str) -> list[tuple[object, ...]]:
    with transaction() as session:
        return [tuple(row) for row in session.execute(text(query))]


def test_a_worker_whose_engine_does_not_come_back_goes_and_another_reads_its_pages(
    tmp_path: Path, dispatching: None
) -> None:
    doomed_by = {"slots": 2, "faults": "slow,start:1+", "slow_seconds": 60, "state": tmp_path}
    with worker(**doomed_by) as doomed:
        job = make_readable([page_image(Fault.SLOW), page_image(Fault.SLOW, text="another")])
        reading = "SELECT count(*) FROM work WHERE kind = 'recognise' AND status = 'running'"
        wait_until(lambda: rows(reading) == [(2,)], 30)

        with worker() as sound:
            [engine] = psutil.Process(doomed.pid).children()
            engine.send_signal(signal.SIGKILL)

            assert doomed.wait(60) == 1
            assert sound.poll() is None
            assert len(rows("SELECT id FROM workers WHERE slots > 0")) == 1
            wait_until(lambda: jobs_read(job) == [("succeeded", 0), ("succeeded", 0)], 30)


def test_a_worker_whose_engine_never_starts_says_so_and_takes_no_page() -> None:
    with fake_settings(faults="start"):
        ended = subprocess.run(PROGRAM, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 1
    assert "the device is not there" in ended.stderr
    assert rows("SELECT id FROM workers") == []


def jobs_read(job: Job) -> list[tuple[object, ...]]:
    """Status and failures of each page."""
    return rows(
        f"SELECT status, failures FROM work WHERE kind = 'recognise' AND job_id = '{job.id}'"  # noqa: S608
    )
