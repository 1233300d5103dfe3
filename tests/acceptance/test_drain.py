"""A worker that is told to end while it holds pages that take longer than it may."""

import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from benchmarks.load import rows
from client.sdk import Octavo
from deploy.local import Platform
from tests import documents
from tests.acceptance.conftest import SHORT_TIMERS

PAGES = 6
WORKER = "engine-worker"


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the supervisor says."""
    return []


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, told: list[str]) -> Iterator[Platform]:
    """Two engine workers that take six seconds a page, and may take one second to end."""
    settings = SHORT_TIMERS | {
        "OCTAVO_FAKE_DELAY_SECONDS": "6",
        "OCTAVO_FAKE_SLOTS": "3",
        "OCTAVO_DRAIN_SECONDS": "1",
    }
    directory = tmp_path_factory.mktemp("slow")
    with Platform(
        directory, engine="fake", engine_workers=2, settings=settings, tell=told.append
    ) as platform:
        yield platform


@pytest.fixture
def client(slow: Platform) -> Iterator[Octavo]:
    with Octavo(slow.url, slow.api_key) as octavo:
        yield octavo


def held(platform: Platform) -> int:
    """How many pages are being read."""
    query = "SELECT count(*) FROM work WHERE kind = 'recognise' AND status = 'running'"
    [(count,)] = rows(platform, query)
    return int(count)


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def submitted(client: Octavo, platform: Platform) -> str:
    """A job whose pages are all being read, by both workers."""
    live = "SELECT count(*) FROM workers WHERE kind = 'engine' AND NOT draining"
    recently = f"{live} AND last_seen_at > now() - interval '2 s'"
    eventually(lambda: rows(platform, recently) == [(2,)])
    job = client.submit(io.BytesIO(documents.pdf(pages=PAGES)), name="a.pdf")
    eventually(lambda: held(platform) == PAGES)
    return job.id


def test_what_is_not_finished_in_time_is_given_back_uncounted(
    slow: Platform, client: Octavo, told: list[str]
) -> None:
    job_id = submitted(client, slow)

    os.kill(slow.pids()[WORKER], signal.SIGTERM)

    job = client.wait(job_id, timeout=60)
    assert job.status == "succeeded"
    found = rows(slow, "SELECT sum(failures), count(*) FILTER (WHERE attempt > 1) FROM work")
    assert found == [(0, 3)]  # the three pages that it held were read again
    assert f"{WORKER} ended; starting it again" in told  # with exit status 0


def test_one_that_is_killed_while_it_ends_costs_time_and_no_page(
    slow: Platform, client: Octavo
) -> None:
    job_id = submitted(client, slow)
    pid = slow.pids()[WORKER]

    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):  # it was quick to end
            os.kill(pid, number)
        time.sleep(0.1)

    job = client.wait(job_id, timeout=60)
    assert (job.status, job.pages.failed) == ("succeeded", 0)


def test_work_that_comes_to_one_that_is_ending_goes_to_another(
    slow: Platform, client: Octavo
) -> None:
    os.kill(slow.pids()[WORKER], signal.SIGTERM)
    job = client.submit(io.BytesIO(documents.png()), name="a.png")

    assert client.wait(job.id, timeout=60).status == "succeeded"
    assert rows(
        slow,
        "SELECT sum(failures) FROM work WHERE job_id = "
        "(SELECT id FROM jobs ORDER BY created_at DESC LIMIT 1)",
    ) == [(0,)]
