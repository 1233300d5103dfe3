"""Three times as much as the platform can do: it says so, and keeps what it took."""

import io
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from client.sdk import Octavo
from deploy.local import Platform
from tests import documents
from tests.acceptance.conftest import SHORT_TIMERS

PAGES_A_SECOND = 5  # 2 slots, 0.4 s a page
LOAD_SECONDS = 12
QUEUE_SECONDS = 3
PAGE = documents.png()


@pytest.fixture(scope="module")
def slow_platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that reads five pages a second and takes what it can read in three."""
    settings = {
        **SHORT_TIMERS,
        "OCTAVO_FAKE_DELAY_SECONDS": "0.4",
        "OCTAVO_FAKE_SLOTS": "2",
        "OCTAVO_MAX_QUEUE_SECONDS": str(QUEUE_SECONDS),
    }
    directory = tmp_path_factory.mktemp("slow")
    with Platform(directory, engine="fake", settings=settings) as platform:
        yield platform


def submitted(gateway: httpx.Client, until: float, pause_seconds: float) -> list[httpx.Response]:
    """The answers to submissions one after another, a fixed pause from one to the next."""
    answers = []
    while time.monotonic() < until:
        answers.append(gateway.post("/v1/jobs", content=PAGE))
        time.sleep(pause_seconds)
    return answers


def test_three_times_the_capacity_loses_nothing_that_was_accepted(slow_platform: Platform) -> None:
    with Octavo(slow_platform.url, slow_platform.api_key) as octavo:
        octavo.wait(octavo.submit(io.BytesIO(PAGE)).id)  # now it is known how long a page takes
        headers = {"Authorization": f"Bearer {slow_platform.api_key}"}
        clients = 8
        with (
            httpx.Client(base_url=slow_platform.url, headers=headers, timeout=30) as gateway,
            ThreadPoolExecutor(clients) as crew,
        ):
            until = time.monotonic() + LOAD_SECONDS
            pause = clients / (3.5 * PAGES_A_SECOND)
            loads = crew.map(lambda _: submitted(gateway, until, pause), range(clients))
            answers = [answer for load in loads for answer in load]

        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) == {202, 503}, statuses
        refused = [answer for answer in answers if answer.status_code == 503]
        codes = Counter(answer.json()["code"] for answer in refused)
        # On a slow machine the database may once be the one that is late.
        assert set(codes) <= {"overloaded", "dependency_unavailable"}, codes
        assert codes["overloaded"] >= 0.9 * len(refused)
        for answer in refused:
            assert 1 <= int(answer.headers["Retry-After"]) <= 300
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        assert len({*accepted}) == len(accepted)
        ends = Counter(octavo.wait(job_id, timeout=60).status for job_id in accepted)
        assert ends == {"succeeded": len(accepted)}
        # Nor was it too careful: the engine had work all the while.
        assert len(accepted) >= 0.5 * PAGES_A_SECOND * LOAD_SECONDS


def test_patient_clients_all_get_their_text(slow_platform: Platform) -> None:
    """The SDK comes back when it was asked to: three times what fits is read in the end."""
    count = 3 * QUEUE_SECONDS * PAGES_A_SECOND

    def read(_: int) -> str:
        with Octavo(slow_platform.url, slow_platform.api_key) as octavo:
            return octavo.wait(octavo.submit(io.BytesIO(PAGE)).id, timeout=60).status

    with ThreadPoolExecutor(8) as crew:
        assert set(crew.map(read, range(count))) == {"succeeded"}
