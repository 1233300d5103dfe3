"""A store that answers nobody holds up who needs it, and nobody else."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.limits import READS_AT_ONCE, StoreGuard
from shared import storage
from shared.config import settings
from shared.errors import DependencyUnavailable
from tests.factory import authorization
from tests.operations import PDF, finished, illustrated

CROWD = 60
"""More than the gateway has threads."""


class FrozenStore:
    """What is asked of the store once its calls are `hang`; none is answered before `thaw`."""

    def __init__(self) -> None:
        self.asked = 0
        self._lock = threading.Lock()
        self._is_thawed = threading.Event()

    def hang(self, *_: object) -> Any:
        with self._lock:
            self.asked += 1
        self._is_thawed.wait(120)
        raise DependencyUnavailable("The object store does not answer.")

    def pieces(self, *_: object) -> Iterator[bytes]:
        """An object that begins to come, and then does not."""
        yield self.hang()

    def thaw(self) -> None:
        self._is_thawed.set()


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Iterator[FrozenStore]:
    monkeypatch.setattr(StoreGuard, "LOOK_SECONDS", 600)  # nobody looks whether it is back
    store = FrozenStore()
    yield store
    store.thaw()


def wait_until(holds: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


@dataclass(frozen=True)
class Wait:
    """A way to wait for the store."""

    call: str
    hangs: Callable[..., Any]
    make: Callable[[TestClient], str]
    path: str


@pytest.mark.parametrize(
    "wait",
    [
        Wait("stream", FrozenStore.hang, finished, "result"),
        Wait("stream", FrozenStore.pieces, finished, "result"),
        Wait("get", FrozenStore.hang, illustrated, "pages/1/figures/1"),
    ],
    ids=["a result", "the middle of a result", "a figure"],
)
def test_who_waits_for_it_takes_no_thread_from_others(
    gateway: TestClient, frozen: FrozenStore, monkeypatch: pytest.MonkeyPatch, wait: Wait
) -> None:
    job = wait.make(gateway)
    monkeypatch.setattr(storage, wait.call, lambda *given: wait.hangs(frozen, *given))

    def read() -> int | None:
        with suppress(RuntimeError):  # an answer that has begun breaks
            answer: int = gateway.get(f"/v1/jobs/{job}/{wait.path}").status_code
            return answer
        return None

    with ThreadPoolExecutor(CROWD + 1) as crowd:
        readers = [crowd.submit(read) for _ in range(CROWD)]
        wait_until(lambda: frozen.asked >= READS_AT_ONCE)
        try:
            other = crowd.submit(gateway.get, f"/v1/jobs/{job}").result(30)
        finally:
            frozen.thaw()
        answers = {reader.result() for reader in readers}

    assert other.status_code == 200
    assert answers <= {503, None}


def test_who_comes_while_it_is_away_hears_so_without_asking_it(
    gateway: TestClient, frozen: FrozenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = finished(gateway)
    monkeypatch.setattr(storage, "stream", frozen.hang)
    with ThreadPoolExecutor(CROWD) as crowd:
        path = f"/v1/jobs/{job}/result"
        readers = [crowd.submit(gateway.get, path) for _ in range(CROWD)]
        wait_until(lambda: frozen.asked >= READS_AT_ONCE)
        frozen.thaw()
        answers = [reader.result() for reader in readers]
    asked = frozen.asked

    answers.append(gateway.get(path))

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {
        (503, "dependency_unavailable")
    }
    assert all(int(answer.headers["Retry-After"]) for answer in answers)
    assert frozen.asked == asked < READS_AT_ONCE + StoreGuard.FAILURES


def test_what_is_missing_is_an_answer_of_the_store_too(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = illustrated(gateway)
    figure = f"/v1/jobs/{job}/pages/1/figures/1"

    def asked(answer: Exception) -> int:
        def fail(_: str) -> bytes:
            raise answer

        monkeypatch.setattr(storage, "get", fail)
        status: int = gateway.get(figure).status_code
        return status

    away, missing = DependencyUnavailable(), storage.ObjectMissing()

    assert [asked(each) for each in (away, away, missing, away, away, missing)] == [
        *(503, 503, 404),
        *(503, 503, 404),
    ]


def test_who_reads_again_takes_no_more_than_its_places_for_uploads(
    gateway: TestClient, frozen: FrozenStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vars(settings()), "max_tenant_uploads", 2)
    job = finished(gateway)
    monkeypatch.setattr(storage, "copy", frozen.hang)
    with ThreadPoolExecutor(CROWD) as crowd:
        path = f"/v1/jobs/{job}/retry"
        asked = [crowd.submit(gateway.post, path, json={}) for _ in range(CROWD)]
        wait_until(lambda: sum(each.done() for each in asked) >= CROWD - 2)
        other = gateway.post("/v1/jobs", content=PDF, headers=authorization())
        frozen.thaw()
        answers = Counter(each.result().json()["code"] for each in asked)

    assert other.status_code == 202
    assert answers == {"too_many_in_flight": CROWD - 2, "dependency_unavailable": 2}
    assert frozen.asked == 2
