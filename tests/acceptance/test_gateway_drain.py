"""A gateway that is told to end: unready first, then nobody is cut off, then it closes."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from deploy.local import Platform


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=10) as opened:
        yield opened


def test_it_turns_unready_and_serves_on_and_then_closes(
    pair: Platform, client: httpx.Client
) -> None:
    url, pid = pair.urls[0], pair.pids()["gateway"]
    headers = {"Authorization": f"Bearer {pair.api_key}"}
    assert "Connection" not in client.get(f"{url}/v1/jobs", headers=headers).headers

    os.kill(pid, signal.SIGTERM)

    until = time.monotonic() + 0.5
    while client.get(f"{url}/readyz").status_code == 200:
        assert time.monotonic() < until
    served = client.get(f"{url}/v1/jobs", headers=headers)
    assert served.status_code == 200
    assert served.headers["Connection"] == "close"
    assert client.get(f"{pair.urls[1]}/readyz").status_code == 200

    _await_another(pair, pid)
    assert client.get(f"{url}/readyz").status_code == 200


def test_who_waits_for_a_job_is_answered_when_it_ends(pair: Platform, client: httpx.Client) -> None:
    pid = pair.pids()["gateway"]
    headers = {"Authorization": f"Bearer {pair.api_key}"}
    with _standing_still(pair.pids()["cpu-worker"]):
        body = b"%PDF-1.7\n" + os.urandom(1000)
        job = client.post(f"{pair.url}/v1/jobs", content=body, headers=headers).json()
        os.kill(pid, signal.SIGTERM)
        began = time.monotonic()
        answer = client.get(f"{pair.url}/v1/jobs/{job['id']}?wait=30", headers=headers)
        assert answer.json()["status"] == "queued"
        assert time.monotonic() - began < 10
        client.post(f"{pair.urls[1]}/v1/jobs/{job['id']}/cancel", headers=headers)
        client.delete(f"{pair.urls[1]}/v1/jobs/{job['id']}", headers=headers)
    _await_another(pair, pid)


def test_who_watches_a_page_is_let_go_when_it_ends(pair: Platform, client: httpx.Client) -> None:
    pid = pair.pids()["gateway"]
    headers = {"Authorization": f"Bearer {pair.api_key}"}
    with _standing_still(pair.pids()["cpu-worker"]):
        body = b"%PDF-1.7\n" + os.urandom(1000)
        job = client.post(f"{pair.url}/v1/jobs", content=body, headers=headers).json()
        path = f"/v1/jobs/{job['id']}"
        with client.stream("GET", f"{pair.url}{path}/pages/1/events", headers=headers) as watched:
            os.kill(pid, signal.SIGTERM)
            began = time.monotonic()
            assert watched.read() == b"retry: 1000\n\n"
            assert time.monotonic() - began < 2
        client.delete(f"{pair.urls[1]}{path}", headers=headers)
    _await_another(pair, pid)


def _await_another(pair: Platform, pid: int) -> None:
    """Return when the gateway of that id has ended and another is ready."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if pair.pids().get("gateway", pid) != pid:
            try:
                httpx.get(f"{pair.url}/readyz", timeout=2)
            except httpx.TransportError:
                time.sleep(0.1)
            else:
                return
        time.sleep(0.05)
    raise AssertionError


@contextmanager
def _standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
