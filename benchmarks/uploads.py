"""How many documents of 1 MB a gateway takes in a second."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx

from deploy.local import Platform

CLIENTS = 8
BODY = b"%PDF-1.7\n" + os.urandom(1_000_000)


def measure(platform: Platform, uploads: int) -> float:
    """Uploads a second by clients side by side. The workers stand still: only taking is measured."""
    headers = {"Authorization": f"Bearer {platform.api_key}", "Content-Type": "application/pdf"}
    with (
        _standing_still(platform.pids()["cpu-worker"]),
        httpx.Client(base_url=platform.url, headers=headers, timeout=60) as client,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        began = time.perf_counter()
        list(clients.map(lambda _: _upload(client), range(uploads)))
        return uploads / (time.perf_counter() - began)


def _upload(client: httpx.Client) -> None:
    client.post("/v1/jobs", content=BODY).raise_for_status()


@contextmanager
def _standing_still(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
