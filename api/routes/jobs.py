"""Jobs: listing, status, cancelling, retrying, deleting."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated
from uuid import UUID, uuid4

from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import TypeAdapter, ValidationError

from api import cursor, once, present, submit
from api.admission import Admission
from api.deps import Acting, Deleter, Once, Reader, Submitter, Transaction
from api.errors import documented
from api.limits import Limits
from api.schemas import JOB_ID, DeletionReceipt, Job, JobList, RetryRequest
from shared import audit, idempotency, jobs, storage
from shared.audit import Action, Actor
from shared.config import settings
from shared.db import transaction
from shared.errors import (
    DependencyUnavailable,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidOptions,
    InvalidPageRange,
    JobDeleted,
    JobFinished,
    JobNotFinished,
    MalformedRequest,
    MissingScope,
    NotFound,
    NothingToRetry,
    Overloaded,
    PromptNotAllowed,
    QuotaExceeded,
    RateLimited,
    RequestTooLarge,
    RequestTooSlow,
    ResultExpired,
    TooManyFailedLogins,
    TooManyInFlight,
    Unauthenticated,
)
from shared.idempotency import Answered, Mark
from shared.keys import Caller
from shared.models import Tombstone
from shared.options import Metadata
from shared.status import JobStatus

router = APIRouter(tags=["jobs"])

JobId = Annotated[str, Path(description="A job's id.", examples=[JOB_ID])]
Limit = Annotated[int, Query(ge=1, le=200, description="How many at most.")]

ALWAYS = (
    Unauthenticated,
    TooManyFailedLogins,
    MissingScope,
    InvalidOptions,
    RateLimited,
    DependencyUnavailable,
)
_METADATA = TypeAdapter(Metadata)

FIRST_LOOK_SECONDS, LAST_LOOK_SECONDS = 0.03, 0.5
"""A waiter looks at the row; short at first, for who is nearly done."""


@router.get("/v1/jobs", summary="List jobs", responses=documented(*ALWAYS))
def list_jobs(
    request: Request,
    caller: Reader,
    session: Transaction,
    limit: Limit = 50,
    cursor_: Annotated[
        str | None, Query(alias="cursor", max_length=500, description="Where to go on.")
    ] = None,
    status: Annotated[JobStatus | None, Query(description="Only jobs in this state.")] = None,
) -> JobList:
    """Your jobs, newest first. `?metadata.case=A-17` finds those that carry it."""
    rows = jobs.recent(
        session,
        caller.tenant,
        before=cursor.to_job(cursor_) if cursor_ else None,
        status=status,
        metadata=_metadata(request),
        most=limit + 1,
    )
    more = len(rows) > limit
    last = rows[limit - 1] if more else None
    return JobList(
        data=[present.job(session, row) for row in rows[:limit]],
        next_cursor=cursor.of_job(last.created_at, last.id) if last else None,
    )


@router.get(
    "/v1/jobs/{job_id}",
    summary="Get a job's status",
    responses={
        200: {"headers": {"ETag": {"schema": {"type": "string"}}}},
        304: {"description": "Nothing has changed since the ETag was given."},
        **documented(*ALWAYS, NotFound, JobDeleted, TooManyInFlight, Overloaded),
    },
    response_model=Job,
)
async def get_job(
    request: Request,
    response: Response,
    job_id: JobId,
    caller: Reader,
    wait: Annotated[
        float,
        Query(
            ge=0,
            description="Seconds to wait for the job's end; with If-None-Match, for any change. "
            "At most 60.",
        ),
    ] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Job | Response:
    """How far a job is. `?wait=20` answers when it has ended, or after 20 seconds."""
    find = partial(_read, caller.tenant, jobs.parse_id(job_id))
    if wait:
        with _waiting(request, caller):
            progress = partial(_progress, caller.tenant, jobs.parse_id(job_id))
            job = await _wait(request, find, progress, wait, if_none_match)
    else:
        job = await run_in_threadpool(find)
    response.headers["ETag"] = present.etag(job)
    if not job.status.is_final:
        response.headers["Retry-After"] = str(present.retry_after_seconds(job))
    if present.etag(job) == if_none_match:
        return Response(status_code=304, headers=dict(response.headers))
    return job


@router.post(
    "/v1/jobs/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    responses={
        200: {"model": Job, "description": "It was cancelled before."},
        **documented(*ALWAYS, NotFound, JobFinished, JobDeleted),
    },
)
def cancel_job(
    response: Response, job_id: JobId, caller: Submitter, actor: Acting, session: Transaction
) -> Job:
    """Stop a job. Pages that are being read are given up within a heartbeat; finished ones stay."""
    row, now = jobs.cancel(session, caller.tenant, jobs.parse_id(job_id))
    if now:
        thing = jobs.public_id(row.id)
        audit.record(session, caller.tenant, actor, Action.JOB_CANCELLED, thing)
    response.status_code = 202 if now else 200
    return present.job(session, row)


@router.post(
    "/v1/jobs/{job_id}/retry",
    status_code=202,
    summary="Read pages again",
    responses={
        202: {"headers": once.REPLAYED_HEADER},
        **documented(
            *ALWAYS,
            MalformedRequest,
            RequestTooLarge,
            RequestTooSlow,
            NotFound,
            JobNotFinished,
            NothingToRetry,
            PromptNotAllowed,
            InvalidPageRange,
            IdempotencyInFlight,
            IdempotencyMismatch,
            JobDeleted,
            ResultExpired,
            TooManyInFlight,
            QuotaExceeded,
            Overloaded,
        ),
    },
)
async def retry_job(
    request: Request,
    response: Response,
    job_id: JobId,
    caller: Submitter,
    actor: Acting,
    asked: RetryRequest,
    idempotency_key: Once = None,
) -> Job:
    """Make a new job that reads the failed pages again and keeps the good ones.

    The old job stays as it is. An encrypted document needs its password again: it was forgotten
    when the old job ended.
    """
    old, admission = jobs.parse_id(job_id), request.app.state.admission
    fingerprint = once.fingerprint(old.hex, asked.pages, asked.password)
    refusal = admission.refusal(caller.tenant)
    begun: Mark | Answered | None = None
    if idempotency_key is not None:
        begun = await run_in_threadpool(
            once.begin, caller.tenant, "retry", idempotency_key, refusal
        )
    elif refusal is not None:
        raise refusal
    if isinstance(begun, Answered):
        job = await run_in_threadpool(_replay, caller, begun, fingerprint)
        response.headers[once.REPLAYED] = "true"
    else:
        retry = _Retry(caller, actor, old, asked, begun, fingerprint)
        job = await _retry(request.app.state.limits, admission, retry)
    response.headers["Location"] = job.links.self_
    return job


@router.delete(
    "/v1/jobs/{job_id}",
    status_code=202,
    summary="Delete a job",
    responses={
        200: {"model": DeletionReceipt, "description": "Everything is gone."},
        **documented(*ALWAYS, NotFound),
    },
)
def delete_job(
    response: Response, job_id: JobId, caller: Deleter, actor: Acting, session: Transaction
) -> DeletionReceipt:
    """Delete the document, its pages and results, and stop what still runs.

    Rows and objects go within seconds; ask again for the receipt that counts them.
    """
    found, now = jobs.delete(session, caller.tenant, jobs.parse_id(job_id))
    if now:
        thing = jobs.public_id(jobs.parse_id(job_id))
        audit.record(session, caller.tenant, actor, Action.JOB_DELETED, thing)
    response.status_code = 200 if isinstance(found, Tombstone) else 202
    return present.receipt(found)


@dataclass(frozen=True)
class _Retry:
    """A request to read pages again."""

    caller: Caller
    actor: Actor
    old: UUID
    asked: RetryRequest
    mark: Mark | None
    fingerprint: bytes
    new: UUID = field(default_factory=uuid4)


async def _retry(limits: Limits, admission: Admission, retry: _Retry) -> Job:
    """The job that a retry becomes. It copies a document, and so takes places of an upload."""
    tenant = retry.caller.tenant
    try:
        with limits.uploads.taken("uploads"), admission.uploading(tenant):
            await run_in_threadpool(_check_retry, admission, retry)
            await limits.in_store(
                partial(_copy_source, tenant, retry.old, retry.new), limits.copies
            )
            return await run_in_threadpool(_create_retry, admission, retry)
    except BaseException:
        if retry.mark is not None:
            await run_in_threadpool(once.give_up, retry.mark)
        raise


def _check_retry(admission: Admission, retry: _Retry) -> None:
    """Refuse, before a byte is copied, what would be refused after that."""
    tenant = retry.caller.tenant
    with transaction(tenant) as session:
        old = jobs.get(session, tenant, retry.old)
        submit.reused(session, old, retry.asked.pages, may_prompt=admission.may_prompt(tenant))
    if refusal := admission.refusal(tenant, more_bytes=old.source_bytes):
        raise refusal


def _copy_source(tenant: UUID, old: UUID, new: UUID) -> None:
    """Give a new job its own copy of an old one's document: object first, row second."""
    try:
        storage.copy(storage.source_key(tenant, old), storage.source_key(tenant, new))
    except storage.ObjectMissing as error:
        raise ResultExpired(submit.GONE) from error


def _create_retry(admission: Admission, retry: _Retry) -> Job:
    tenant = retry.caller.tenant
    with submit.or_nothing(tenant, retry.new), transaction(tenant) as session:
        row = submit.retry(
            session,
            jobs.lock(session, jobs.get(session, tenant, retry.old).id),
            job_id=retry.new,
            chosen=retry.asked.pages,
            password=retry.asked.password,
            may_prompt=admission.may_prompt(tenant),
            actor=retry.actor,
        )
        job = present.job(session, row)
        if retry.mark is not None:
            fingerprint = retry.fingerprint
            idempotency.answer(session, retry.mark, job_id=retry.new, fingerprint=fingerprint)
        admission.settle(session, tenant)
        return job


def _replay(caller: Caller, answered: Answered, fingerprint: bytes) -> Job:
    with transaction(caller.tenant) as session:
        row = once.replayed(session, caller.tenant, answered, fingerprint)
        return present.job(session, row)


@contextmanager
def _waiting(request: Request, caller: Caller) -> Iterator[None]:
    """A place among those who wait, for the block."""
    limits, what = request.app.state.limits, "waiting clients"
    with limits.tenant_waiters.taken(caller.tenant, what), limits.waiters.taken(what):
        yield


async def _wait(
    request: Request,
    find: Callable[[], Job],
    progress: Callable[[], jobs.Progress | None],
    seconds: float,
    known: str | None,
) -> Job:
    """The job when it has ended or, where a tag is known, has changed; or when time is up."""
    looks = request.app.state.limits.looks
    until = time.monotonic() + min(seconds, settings().max_wait_seconds)
    look = FIRST_LOOK_SECONDS
    while True:
        before = await run_sync(progress, limiter=looks)  # first: no change falls in between
        job = await run_sync(find, limiter=looks)
        if present.etag(job) != known if known else job.status.is_final:
            return job
        while True:
            if time.monotonic() >= until or await _must_end(request):
                return await run_sync(find, limiter=looks)
            await asyncio.sleep(min(look, max(0.0, until - time.monotonic())))
            look = min(look * 1.5, LAST_LOOK_SECONDS)
            now = await run_sync(progress, limiter=looks)
            if before != now and (known or now is None or now.status.is_final):
                break


def _progress(tenant: UUID, job_id: UUID) -> jobs.Progress | None:
    with transaction(tenant, alone=True) as session:
        return jobs.progress(session, job_id)


def _read(tenant: UUID, job_id: UUID) -> Job:
    with transaction(tenant) as session:
        return present.job(session, jobs.get(session, tenant, job_id))


async def _must_end(request: Request) -> bool:
    """Whether a waiter is to be answered now: it has gone away, or the gateway is ending."""
    return request.app.state.draining.is_set() or await request.is_disconnected()


def _metadata(request: Request) -> dict[str, str]:
    given = {
        name.removeprefix("metadata."): value
        for name, value in request.query_params.items()
        if name.startswith("metadata.")
    }
    try:
        return _METADATA.validate_python(given)
    except ValidationError as error:
        raise InvalidOptions("metadata: a key or a value is not one that a job can have") from error
