"""A steady load of small documents on a platform, and how each of them was answered.

Sent at fixed times, whether those before were answered or not: a gateway that hangs is not spared.
"""

from __future__ import annotations

import io
import itertools
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Self

import httpx
import psycopg2
from PIL import Image

from deploy.local import Platform

SENDERS = 96
PROBE_SECONDS = 0.2


@dataclass(frozen=True)
class Answer:
    """How one submission was answered. `status` 0: the connection broke, `problem` says how."""

    began: float
    seconds: float
    status: int
    problem: str = ""
    retry_after: str | None = None


class Balancer:
    """Sends each request to a gateway that says it is ready, by turns.

    As balancers do, it tries the next one where no connection could be made, and never repeats
    what may have arrived.
    """

    def __init__(self, urls: Sequence[str], api_key: str) -> None:
        headers = {"Authorization": f"Bearer {api_key}"}
        limits = httpx.Limits(max_connections=None, keepalive_expiry=2)
        self._client = httpx.Client(headers=headers, limits=limits, timeout=60)
        self._urls = urls
        self._ready = list(urls)
        self._turns = itertools.count()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._probe, name="balancer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop asking, and close all connections."""
        self._closed.set()
        self._thread.join()
        self._client.close()

    def post(self, path: str, **request: Any) -> httpx.Response:
        """The answer of one gateway; raises httpx.TransportError."""
        ready = self._ready or self._urls
        turn = next(self._turns)
        for attempt in range(len(ready)):
            url = ready[(turn + attempt) % len(ready)]
            try:
                return self._client.post(url + path, **request)
            except httpx.ConnectError:
                if attempt + 1 == len(ready):
                    raise
        raise AssertionError

    def _probe(self) -> None:
        while not self._closed.wait(PROBE_SECONDS):
            self._ready = [url for url in self._urls if self._is_ready(url)]

    def _is_ready(self, url: str) -> bool:
        try:
            return self._client.get(f"{url}/readyz", timeout=2).is_success
        except httpx.TransportError:
            return False


class Load:
    """Submissions at a steady rate while the block runs."""

    def __init__(self, platform: Platform, *, per_second: float) -> None:
        self.answers: list[Answer] = []
        self._pause = 1 / per_second
        self._body = _document()
        self._balancer = Balancer(platform.urls, platform.api_key)
        self._senders = ThreadPoolExecutor(SENDERS)
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._run, name="load", daemon=True)

    def __enter__(self) -> Self:
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._clock.join()
        self._senders.shutdown()
        self._balancer.close()

    def statuses(self, *, since: float = 0) -> Counter[int]:
        """How many submissions, begun since then, were answered how."""
        return Counter(answer.status for answer in self.answers if answer.began >= since)

    def between(self, begin: float, end: float) -> list[Answer]:
        """The answers to what was begun between two moments of the monotonic clock."""
        return [answer for answer in self.answers if begin <= answer.began < end]

    def _run(self) -> None:
        due = time.monotonic()
        while not self._ended.wait(max(0.0, due - time.monotonic())):
            due += self._pause
            self._senders.submit(self._submit)

    def _submit(self) -> None:
        began = time.monotonic()
        try:
            answer = self._balancer.post("/v1/jobs?filename=load.jpg", content=self._body)
        except httpx.TransportError as error:
            status, problem, retry_after = 0, repr(error), None
        else:
            status, retry_after = answer.status_code, answer.headers.get("Retry-After")
            problem = "" if answer.is_success else answer.text
        seconds = time.monotonic() - began
        self.answers.append(Answer(began, seconds, status, problem, retry_after))


def percentile(answers: Sequence[Answer], share: float) -> float:
    """In seconds."""
    seconds = sorted(answer.seconds for answer in answers)
    return seconds[int(share * (len(seconds) - 1))]


def rows(platform: Platform, query: str) -> list[tuple[Any, ...]]:
    """What the platform's database says."""
    url = platform.environment["OCTAVO_DATABASE_URL"].replace("+psycopg2", "")
    with closing(psycopg2.connect(url, connect_timeout=5)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()


def unfinished(platform: Platform) -> int:
    """How many jobs have not ended."""
    [(count,)] = rows(platform, "SELECT count(*) FROM jobs WHERE finished_at IS NULL")
    return int(count)


def failures(platform: Platform) -> int:
    """How many failures were counted, and jobs and pages failed."""
    query = """
        SELECT (SELECT coalesce(sum(failures), 0) FROM work)
             + (SELECT count(*) FROM work WHERE status = 'failed')
             + (SELECT count(*) FROM jobs WHERE status NOT IN ('queued', 'running', 'succeeded'))
    """
    [(count,)] = rows(platform, query)
    return int(count)


def seconds_until_done(platform: Platform, *, at_most: float) -> float:
    """How long it takes until every job has ended; raises TimeoutError."""
    began = time.monotonic()
    while left := unfinished(platform):
        if time.monotonic() - began > at_most:
            raise TimeoutError(f"{left} jobs have not ended after {at_most:g} s")
        time.sleep(0.1)
    return time.monotonic() - began


def _document() -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", (310, 440), "white").save(encoded, "JPEG")
    return encoded.getvalue()
