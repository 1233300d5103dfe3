"""What was read: pages while the job runs, and the whole document after."""

from __future__ import annotations

from functools import partial
from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, StreamingResponse

from api import examples, finished, present
from api.deps import Acting, Reader, Transaction
from api.errors import documented
from api.limits import Limits
from api.routes.jobs import ALWAYS, JobId, Limit
from api.schemas import Job, PageList
from shared import audit, jobs, pages, storage
from shared.audit import Action, Actor
from shared.db import transaction
from shared.document import Document, DocumentPage
from shared.errors import (
    JobCancelled,
    JobDeleted,
    JobFailed,
    NotFound,
    PageNotFinished,
    ResultExpired,
)
from shared.formats import Format
from shared.media import MediaType
from shared.models import Job as JobRow
from shared.status import JobStatus

router = APIRouter(tags=["results"])

PageNo = Annotated[int, Path(ge=1, le=2**31 - 1, description="The page's number, from 1.")]


@router.get(
    "/v1/jobs/{job_id}/pages",
    summary="List a job's pages",
    responses={
        **examples.as_json(examples.PAGE_LIST, "Pages and their states."),
        **documented(*ALWAYS, NotFound, JobDeleted, ResultExpired),
    },
)
def list_pages(
    job_id: JobId,
    caller: Reader,
    session: Transaction,
    limit: Limit = 50,
    cursor: Annotated[
        int, Query(ge=0, le=2**31 - 1, description="The page after which to go on.")
    ] = 0,
) -> PageList:
    """The pages that are known so far, in order, with their states."""
    job = finished.unexpired(jobs.get(session, caller.tenant, jobs.parse_id(job_id)))
    rows = pages.read(session, job.id, after=cursor, most=limit + 1)
    more = len(rows) > limit
    return PageList(
        job_id=jobs.public_id(job.id),
        status=job.status,
        total=job.pages_total,
        data=[
            present.page(page, work, confidence=confidence, needs_review=flagged)
            for page, work, confidence, flagged in rows[:limit]
        ],
        next_cursor=str(rows[limit - 1][0].page_no) if more else None,
    )


@router.get(
    "/v1/jobs/{job_id}/pages/{page_no}",
    summary="Get one page",
    responses={
        **examples.as_json(examples.PAGE, "What was read of the page, or why it failed."),
        **documented(*ALWAYS, NotFound, PageNotFinished, JobDeleted, ResultExpired),
    },
)
def get_page(
    job_id: JobId,
    page_no: PageNo,
    caller: Reader,
    actor: Acting,
    session: Transaction,
) -> DocumentPage:
    """What was read of one page, as soon as that is done, also while the job runs."""
    job = finished.unexpired(jobs.get(session, caller.tenant, jobs.parse_id(job_id)))
    found = finished.page(session, job, page_no)
    if found is None:
        raise finished.absence(job, page_no)
    thing = jobs.public_id(job.id)
    audit.record(session, caller.tenant, actor, Action.PAGE_READ, thing, page=page_no)
    return found


@router.get(
    "/v1/jobs/{job_id}/pages/{page_no}/figures/{number}",
    summary="Get a figure of a page",
    response_class=Response,
    responses={
        200: {
            "description": "The figure, as it was cut out of the page's image.",
            "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(*ALWAYS, NotFound, PageNotFinished, JobDeleted, ResultExpired),
    },
)
async def get_figure(
    request: Request,
    job_id: JobId,
    page_no: PageNo,
    number: Annotated[int, Path(ge=1, le=2**31 - 1, description="As `figure` of its block.")],
    caller: Reader,
    actor: Acting,
) -> Response:
    """A picture that stands in a page. `pages/1/figures/2` in markdown is below the job's address.

    Whoever wrote the document drew it: it is shown as it is, and is to be trusted with nothing.
    """
    limits: Limits = request.app.state.limits
    key = await run_in_threadpool(
        _figure_key, caller.tenant, actor, jobs.parse_id(job_id), page_no, number
    )
    try:
        figure = await limits.in_store(partial(storage.get, key), limits.reads)
    except storage.ObjectMissing as error:
        raise NotFound("The figure is gone.") from error
    headers = {
        "Content-Disposition": f'inline; filename="page-{page_no}-figure-{number}.jpg"',
        "Content-Security-Policy": "sandbox",
    }
    return Response(figure, 200, headers, MediaType.JPEG)


@router.get(
    "/v1/jobs/{job_id}/result",
    summary="Get the document",
    response_model=Document,
    response_class=Response,
    responses={
        200: {
            "description": "The document, in the format asked for.",
            "content": {
                "text/markdown": {"schema": {"type": "string"}, "example": examples.MARKDOWN},
                "text/plain": {"schema": {"type": "string"}, "example": examples.TEXT},
                "application/json": {
                    "schema": {"$ref": "#/components/schemas/Document"},
                    "example": examples.DOCUMENT,
                },
            },
        },
        202: {"model": Job, "description": "It is not done yet; the job's status."},
        **documented(*ALWAYS, NotFound, JobFailed, JobCancelled, JobDeleted, ResultExpired),
    },
)
async def get_result(
    request: Request,
    job_id: JobId,
    caller: Reader,
    actor: Acting,
    format: Annotated[Format, Query(description="What to get.")] = Format.MARKDOWN,  # noqa: A002
) -> Response:
    """The whole document. Its text is untrusted: escape it where it is shown."""
    found = await run_in_threadpool(_readable, caller.tenant, actor, jobs.parse_id(job_id), format)
    if isinstance(found, Job):
        return _not_yet(found)
    return await _file(request.app.state.limits, found, format)


def _figure_key(tenant: UUID, actor: Actor, job_id: UUID, page_no: int, number: int) -> str:
    """Where a figure lies, once it is noted that it is read."""
    with transaction(tenant) as session:
        job = finished.unexpired(jobs.get(session, tenant, job_id))
        key = pages.figure_key(session, job, page_no, number)
        if key is None:
            is_finished = finished.page(session, job, page_no) is not None
            raise (
                NotFound("The page has no such figure.")
                if is_finished
                else finished.absence(job, page_no)
            )
        facts = {"page": page_no, "figure": number}
        thing = jobs.public_id(job.id)
        audit.record(session, tenant, actor, Action.FIGURE_READ, thing, **facts)
    return key


def _readable(tenant: UUID, actor: Actor, job_id: UUID, chosen: Format) -> JobRow | Job:
    """A job that has a result, once it is noted that it is read; or how far it is."""
    with transaction(tenant) as session:
        job = finished.unexpired(jobs.get(session, tenant, job_id))
        if not job.status.is_final:
            return present.job(session, job)
        if job.status is JobStatus.CANCELLED:
            raise JobCancelled
        if job.status is JobStatus.FAILED:
            raise JobFailed((job.error or {}).get("detail", ""), cause=job.error)
        thing = jobs.public_id(job.id)
        audit.record(session, tenant, actor, Action.RESULT_READ, thing, format=chosen)
    return job


def _not_yet(job: Job) -> JSONResponse:
    headers = {"Retry-After": str(present.retry_after_seconds(job))}
    return JSONResponse(job.model_dump(mode="json", by_alias=True), 202, headers)


async def _file(limits: Limits, job: JobRow, chosen: Format) -> StreamingResponse:
    assert job.result_attempt is not None
    key = storage.result_key(job.tenant, job.id, job.result_attempt, chosen.extension)
    stem = PurePosixPath(job.source_name).stem or "document"
    name = quote(f"{stem}.{chosen.extension}")
    headers = {
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Content-Security-Policy": "sandbox",  # whatever stands in it, it is not our page
    }
    try:
        chunks = await limits.in_store(partial(storage.stream, key), limits.reads)
    except storage.ObjectMissing as error:
        raise ResultExpired from error  # retention or a deletion was faster
    return StreamingResponse(limits.pieces(chunks), 200, headers, chosen.media_type)
