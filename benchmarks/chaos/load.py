"""Clients of a platform that is being broken: they send, send again, cancel, delete and wait.

What is promised is promised with the 202, so only acknowledged jobs count. A client does what a
good one does: it tries again where it was refused or heard nothing, with the key of its submission,
and takes another gateway where one does not answer.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from uuid import UUID

import httpx

from benchmarks.chaos.documents import Fate, Submission

AT_ONCE = 12
"""Requests in progress; more would only wait at the gateways."""
TIMEOUT_SECONDS = 20.0
GIVE_UP_SECONDS = 120.0
LONGEST_PAUSE_SECONDS = 3.0
WATCHED = 10
"""Every so many jobs, one is watched by long polls until it ends."""

AGAIN = {
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}
IN_FLIGHT = "idempotency_in_flight"


@dataclass
class Sent:
    """What the clients know in the end."""

    acknowledged: dict[UUID, Submission] = field(default_factory=dict)
    given_up: list[Submission] = field(default_factory=list)
    repeated: int = 0  # requests that had to be sent again
    unexpected: Counter[str] = field(default_factory=Counter)  # answers that no client should get


class Clients:
    """Everybody who sends documents to one platform."""

    def __init__(self, urls: Sequence[str], api_key: str) -> None:
        self.sent = Sent()
        self._urls = itertools.cycle(urls)
        self._client = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(keepalive_expiry=2.0),
        )
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def send(self, submissions: Iterable[Submission], *, over_seconds: float) -> None:
        """Send all of them, evenly over the time, and do with them what is their fate."""
        everything = list(submissions)
        async with self._client, asyncio.TaskGroup() as group:
            began = time.monotonic()
            for place, submission in enumerate(everything):
                due = began + over_seconds * place / len(everything)
                await asyncio.sleep(due - time.monotonic())
                group.create_task(self._see_through(submission))

    async def keep_sending(
        self, submissions: Iterator[Submission], a_second: float, ended: threading.Event
    ) -> None:
        """Send so many a second until `ended`."""
        async with self._client, asyncio.TaskGroup() as group:
            began = time.monotonic()
            for place, submission in enumerate(submissions):
                await asyncio.sleep(began + place / a_second - time.monotonic())
                if ended.is_set():
                    return
                group.create_task(self._see_through(submission))

    async def keep_busy(
        self, submissions: Iterator[Submission], at_once: int, ended: threading.Event
    ) -> None:
        """Have so many jobs in progress until `ended`, the next when one is over."""
        async with self._client, asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(self._one_after_another(submissions, ended))

    async def _one_after_another(
        self, submissions: Iterator[Submission], ended: threading.Event
    ) -> None:
        while not ended.is_set():
            if job_id := await self._submit(next(submissions)):
                await self._watch(job_id)

    async def _see_through(self, submission: Submission) -> None:
        job_id = await self._submit(submission)
        if job_id is None:
            self.sent.given_up.append(submission)
            return
        self.sent.acknowledged[UUID(hex=job_id.removeprefix("job_"))] = submission
        if submission.fate is not Fate.KEPT:
            await asyncio.sleep(submission.patience_seconds)
            await self._end(job_id, submission.fate)
        elif submission.number % WATCHED == 0:
            await self._watch(job_id)

    async def _submit(self, submission: Submission) -> str | None:
        """The id of the acknowledged job."""
        answer = await self._persist(
            "POST",
            "/v1/jobs",
            content=submission.document(),
            params={
                "filename": f"{submission.number}",
                "metadata.submission": submission.key,
                "priority": "batch" if submission.is_batch else "interactive",
            },
            headers={"Idempotency-Key": submission.key},
        )
        if answer is None or answer.status_code != HTTPStatus.ACCEPTED:
            return None
        job_id: str = answer.json()["id"]
        return job_id

    async def _end(self, job_id: str, fate: Fate) -> None:
        if fate is Fate.DELETED:
            await self._persist("DELETE", f"/v1/jobs/{job_id}")
        else:
            await self._persist("POST", f"/v1/jobs/{job_id}/cancel")

    async def _watch(self, job_id: str) -> None:
        gives_up_at = time.monotonic() + GIVE_UP_SECONDS
        while time.monotonic() < gives_up_at:
            answer = await self._persist("GET", f"/v1/jobs/{job_id}", params={"wait": "10"})
            if answer is None or answer.json().get("finished_at"):
                return

    async def _persist(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response | None:
        """The answer that is no «try again»; None where there is none for too long."""
        gives_up_at = time.monotonic() + GIVE_UP_SECONDS
        pause = 0.2
        while time.monotonic() < gives_up_at:
            async with self._turns:
                answer = await self._ask(method, path, content, params, headers)
            if answer is not None and not _is_to_be_repeated(answer):
                self._judge(method, answer)
                return answer
            self.sent.repeated += 1
            wished = float(answer.headers.get("Retry-After", 0)) if answer is not None else 0.0
            await asyncio.sleep(min(max(pause, wished), LONGEST_PAUSE_SECONDS))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
        return None

    async def _ask(
        self,
        method: str,
        path: str,
        content: bytes | None,
        params: dict[str, str] | None,
        headers: dict[str, str] | None,
    ) -> httpx.Response | None:
        """The answer of the next gateway; None where the connection failed."""
        try:
            return await self._client.request(
                method, next(self._urls) + path, content=content, params=params, headers=headers
            )
        except httpx.TransportError:
            return None

    def _judge(self, method: str, answer: httpx.Response) -> None:
        """Note an answer that nothing of what we did explains."""
        finished = answer.status_code == HTTPStatus.CONFLICT and _code(answer) == "job_finished"
        gone = answer.status_code == HTTPStatus.GONE
        if not (answer.is_success or finished or gone):
            self.sent.unexpected[f"{method} {answer.status_code} {_code(answer)}"] += 1


def _is_to_be_repeated(answer: httpx.Response) -> bool:
    return answer.status_code in AGAIN or _code(answer) == IN_FLIGHT


def _code(answer: httpx.Response) -> str:
    """The code of a problem; empty where the answer is none."""
    if "problem+json" not in answer.headers.get("Content-Type", ""):
        return ""
    return str(answer.json().get("code", ""))
