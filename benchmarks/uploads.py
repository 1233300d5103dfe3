"""How many documents of 1 MB a gateway takes in a second."""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http import HTTPStatus
from threading import Barrier
from urllib.parse import urlsplit

from deploy.local import Platform

CLIENTS = 12
"""Enough that two cores never wait for one; a tenant may have sixteen uploads at once."""
WARM_UP_SECONDS = 60
BODY = b"%PDF-1.7\n" + os.urandom(1_000_000)


def measure(platform: Platform, uploads: int) -> float:
    """Uploads a second by clients side by side. The workers stand still: only taking is measured."""
    share, start = uploads // CLIENTS, Barrier(CLIENTS + 1)
    with (
        _standing_still(platform.pids()["cpu-worker"]),
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        uploading = [clients.submit(_upload, platform, share, start) for _ in range(CLIENTS)]
        start.wait(WARM_UP_SECONDS)
        began = time.perf_counter()
        for client in uploading:
            client.result()
        return share * CLIENTS / (time.perf_counter() - began)


def _upload(platform: Platform, times: int, start: Barrier) -> None:
    """Upload over one connection, with a client that costs next to nothing.

    The first one, for which the gateway opens a connection to its database, comes before `start`.
    """
    headers = {"Authorization": f"Bearer {platform.api_key}", "Content-Type": "application/pdf"}
    gateway = http.client.HTTPConnection(urlsplit(platform.url).netloc, timeout=60)
    with closing(gateway):
        for number in range(1 + times):
            if number == 1:
                start.wait(WARM_UP_SECONDS)
            gateway.request("POST", "/v1/jobs", BODY, headers)
            answer = gateway.getresponse()
            said = answer.read()
            assert answer.status == HTTPStatus.ACCEPTED, said


@contextmanager
def _standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
