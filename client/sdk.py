"""Octavo from Python: send documents, watch them being read, fetch what was read.

    with Octavo("https://ocr.example", api_key) as octavo:
        job = octavo.submit("contract.pdf", pages="1-3")
        job = octavo.wait(job.id, timeout=600)
        print(octavo.result(job.id))

Jobs live on the server: a program that ends, or loses its connection, loses nothing but its view.
What is raised stands in `client.errors`, what is returned in `client.models`.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar, Unpack
from uuid import uuid4

import httpx

from client.errors import NotFinished, WaitTimeout, error_of
from client.event_stream import EventDecoder
from client.models import (
    JOB_ID_PATTERN,
    DeletionReceipt,
    Document,
    DocumentPage,
    Job,
    JobList,
    Options,
    PageEvent,
    PageList,
    PageReset,
    PageSummary,
    PageText,
    Problem,
    ResultFormat,
)
from client.transport import (
    WATCHING,
    Patience,
    Transport,
    parsed,
    parsed_event,
    retry_after_seconds,
)
from client.upload import Upload

POLL_SECONDS = 20
"""How long the server may hold an answer back until something changes."""

SHORTEST_POLL_SECONDS = 0.25
"""A server that does not hold answers back is not asked more often than that."""

ITEMS_A_REQUEST = 100

_PAGE_EVENTS: dict[str, type[PageEvent]] = {
    "text": PageText,
    "reset": PageReset,
    "page": DocumentPage,
}

_List = TypeVar("_List", JobList, PageList)


class Octavo:
    """One server, as one tenant sees it. Safe to use from many threads; close it in the end.

    A request that does not come through is repeated for a few seconds, a watch for ten minutes;
    but never one that might be carried out twice: what makes a job has a key of its own, by which
    the server knows it again. `jobs`, `pages` and `watch` ask as they go on.
    Every method that asks raises ApiError or ConnectionFailed, and ValueError for what cannot be
    a job's id.
    """

    def __init__(self, url: str, api_key: str, *, timeout: float = 60.0) -> None:
        """`timeout` is how many seconds one step of a request may take: to connect, or an answer.

        Raises ValueError where `url` or `api_key` cannot be right.
        """
        self._transport = Transport(url, api_key, timeout_seconds=timeout)

    @classmethod
    def from_environment(cls, *, timeout: float = 60.0) -> Self:
        """The server at OCTAVO_URL, with OCTAVO_API_KEY; raises ValueError where one is not set."""
        for name in ("OCTAVO_URL", "OCTAVO_API_KEY"):
            if not os.environ.get(name):
                raise ValueError(f"{name} is not set")
        return cls(os.environ["OCTAVO_URL"], os.environ["OCTAVO_API_KEY"], timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; jobs go on."""
        self._transport.close()

    def submit(
        self,
        document: str | os.PathLike[str] | BinaryIO,
        *,
        name: str | None = None,
        on_bytes: Callable[[int], None] | None = None,
        idempotency_key: str | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """The new job that reads `document`, a path or a file open for bytes.

        A file is read from where it stands, piece by piece, and stays open. `name` is what the job
        calls it, its own name where not given; `on_bytes` hears how many bytes were taken so far.
        After ConnectionFailed the job may exist all the same. Who wants to try again later gives
        an `idempotency_key`, up to 255 printable characters: the same document under the same key
        comes to the same job, for a day.
        """
        with _opened(document) as file:
            upload = Upload(file, name=name or _name_of(file), options=options, on_bytes=on_bytes)
            key = idempotency_key or _new_key()
            return parsed(self._transport.upload("/v1/jobs", upload, key=key), Job)

    def job(self, job_id: str) -> Job:
        """How the job stands."""
        return parsed(self._transport.get(_path(job_id)), Job)

    def jobs(self, *, status: str | None = None) -> Iterator[Job]:
        """All jobs, newest first; only those of one `status` where it is given."""
        chosen = {} if status is None else {"status": status}
        for part in self._lists("/v1/jobs", chosen, JobList):
            yield from part.data

    def pages(self, job_id: str) -> Iterator[PageSummary]:
        """The job's pages that are known so far, in order, without their text."""
        for part in self._lists(_path(job_id, "pages"), {}, PageList):
            yield from part.data

    def page(self, job_id: str, number: int) -> DocumentPage:
        """What was read on page `number`, from 1, also while the job runs.

        Raises NotFinished where it has not been read yet.
        """
        return parsed(self._transport.get(_path(job_id, f"pages/{number:d}")), DocumentPage)

    def figure(self, job_id: str, page: int, number: int) -> bytes:
        """A picture that stands in a page, as JPEG; `figure` of its block has the number.

        Raises NotFinished where the page has not been read yet, ApiError `not_found` where it has
        no such figure.
        """
        return self._transport.get(_path(job_id, f"pages/{page:d}/figures/{number:d}")).content

    def page_events(self, job_id: str, number: int) -> Iterator[PageEvent]:
        """The text of page `number` while it is read, and at the end the page, whatever its state.

        PageText has more of the text; after a PageReset the page is read anew, and what came so far
        is void. The text may be cut off, or missing where the engine has none before the end: what
        stands is in the DocumentPage, the last event. Goes on through ten minutes without a
        connection. Raises ApiError where there is no such page, or will be none any more.
        """
        path, decoder = _path(job_id, f"pages/{number:d}/events"), EventDecoder()
        while True:
            for event in self._transport.events(path, decoder, patience=WATCHING):
                if event.name == "problem":
                    problem = parsed_event(event, Problem)
                    raise error_of(problem, status=problem.status or HTTPStatus.OK)
                if (kind := _PAGE_EVENTS.get(event.name)) is None:
                    continue  # of a newer server
                news = parsed_event(event, kind)
                yield news
                if isinstance(news, DocumentPage):
                    return
            time.sleep(decoder.retry_seconds)

    def watch(self, job_id: str) -> Iterator[Job]:
        """The job as it stands, then again at each change, until it is final.

        Goes on through ten minutes without a connection.
        """
        return self._changes(job_id)

    def wait(self, job_id: str, *, timeout: float | None = None) -> Job:
        """The job once it is final, in whatever state: look at `status`.

        Raises WaitTimeout where that takes more than `timeout` seconds; where the server cannot
        be asked for so long, or ten minutes, ConnectionFailed or ApiError.
        """
        ends_at = None if timeout is None else time.monotonic() + timeout
        path = _path(job_id)
        while True:
            asked_at = time.monotonic()
            job = parsed(self._poll(path, None, ends_at), Job)  # no tag: only the end is news
            if job.is_final:
                return job
            if timeout is not None and _seconds_until(ends_at) <= 0:
                raise WaitTimeout(job, timeout_seconds=timeout)
            time.sleep(max(0.0, asked_at + SHORTEST_POLL_SECONDS - time.monotonic()))

    def result(self, job_id: str, format: ResultFormat = "markdown") -> str:  # noqa: A002 -- the API's word
        """The document that was read; untrusted text, written by the document's author.

        Raises NotFinished while the job runs, JobFailed or JobCancelled where there is no result,
        and ApiError `result_expired` or `job_deleted` where it is gone.
        """
        return self._result(job_id, format).content.decode(errors="replace")

    def document(self, job_id: str) -> Document:
        """The document with its pages, blocks and boxes; raises what `result` raises."""
        return parsed(self._result(job_id, "json"), Document)

    def cancel(self, job_id: str) -> Job:
        """The job, which is or soon will be cancelled; ApiError `job_finished` where it is too late."""
        return parsed(self._transport.post(_path(job_id, "cancel")), Job)

    def retry(self, job_id: str, *, pages: str = "failed", password: str | None = None) -> Job:
        """A new job that reads `pages` again: `failed`, `all`, or a range such as `3-5`.

        Pages that were read well are taken from the old job. Raises ApiError `nothing_to_retry`.
        """
        wish = {"pages": pages} if password is None else {"pages": pages, "password": password}
        path = _path(job_id, "retry")
        return parsed(self._transport.post(path, json=wish, key=_new_key()), Job)

    def delete(self, job_id: str) -> DeletionReceipt:
        """What became of the job's document, pages and result: they go for good."""
        return parsed(self._transport.delete(_path(job_id)), DeletionReceipt)

    def _result(self, job_id: str, format: ResultFormat) -> httpx.Response:  # noqa: A002 -- the API's word
        return _finished(self._transport.get(_path(job_id, "result"), params={"format": format}))

    def _changes(self, job_id: str) -> Iterator[Job]:
        """The job, then again at each change, until it is final."""
        path = _path(job_id)
        asked_at = time.monotonic()
        answer = self._transport.get(path, patience=WATCHING)
        job, etag = parsed(answer, Job), answer.headers.get("ETag")
        yield job
        while not job.is_final:
            time.sleep(max(0.0, asked_at + SHORTEST_POLL_SECONDS - time.monotonic()))
            asked_at = time.monotonic()
            answer = self._poll(path, etag, None)
            if answer.status_code == HTTPStatus.NOT_MODIFIED:
                continue
            seen, job, etag = job, parsed(answer, Job), answer.headers.get("ETag")
            if job != seen:
                yield job

    def _poll(self, path: str, etag: str | None, ends_at: float | None) -> httpx.Response:
        """The answer once the job has changed, or 304 at the end of the time."""
        wait_seconds = int(min(POLL_SECONDS, max(0.0, _seconds_until(ends_at))))
        return self._transport.get(
            path,
            params={"wait": wait_seconds},
            headers={} if etag is None else {"If-None-Match": etag},
            wait_seconds=wait_seconds,
            patience=_patience(ends_at),
        )

    def _lists(self, path: str, params: dict[str, str], kind: type[_List]) -> Iterator[_List]:
        """All parts of a list, from cursor to cursor."""
        params = {**params, "limit": str(ITEMS_A_REQUEST)}
        while True:
            part = parsed(self._transport.get(path, params=params), kind)
            yield part
            if part.next_cursor is None:
                return
            params["cursor"] = part.next_cursor


def _path(job_id: str, below: str = "") -> str:
    """The path of a job, or of what is below it; an id must not lead anywhere else."""
    if not re.fullmatch(JOB_ID_PATTERN, job_id):
        raise ValueError(f"{job_id!r} is not the id of a job")
    return f"/v1/jobs/{job_id}/{below}".rstrip("/")


def _opened(document: str | os.PathLike[str] | BinaryIO) -> AbstractContextManager[BinaryIO]:
    if isinstance(document, str | os.PathLike):
        return Path(document).open("rb")
    return nullcontext(document)


def _new_key() -> str:
    """A name for a request that no other has."""
    return str(uuid4())


def _name_of(file: BinaryIO) -> str:
    name = getattr(file, "name", None)  # a number where the file was opened by its descriptor
    return Path(name).name if isinstance(name, str) else "document"


def _seconds_until(moment: float | None) -> float:
    return math.inf if moment is None else moment - time.monotonic()


def _patience(ends_at: float | None) -> Patience:
    return WATCHING.at_most(_seconds_until(ends_at))


def _finished(answer: httpx.Response) -> httpx.Response:
    """`answer`, unless it says that the job still runs."""
    if answer.status_code == HTTPStatus.ACCEPTED:
        problem = Problem(
            code="job_not_finished",
            title="The job has not ended yet, so this is not possible yet.",
            retryable=True,
            request_id=answer.headers.get("X-Request-Id"),
        )
        raise NotFinished(
            problem,
            status=answer.status_code,
            retry_after_seconds=retry_after_seconds(answer),
        )
    return answer
