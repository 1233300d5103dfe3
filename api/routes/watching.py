"""A page while it is read, as a stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response

from api import errors, examples
from api.deps import Acting, Reader
from api.errors import documented
from api.routes.jobs import ALWAYS, JobId
from api.routes.results import PageNo
from api.watching import EventStream, Watch, Watched
from shared import jobs
from shared.errors import JobDeleted, NotFound, Overloaded, ResultExpired, TooManyInFlight

router = APIRouter(tags=["results"])

WHAT = "watched pages"


_EVENT = {
    "type": "object",
    "required": ["event", "data"],
    "oneOf": [
        {
            "properties": {
                "event": {"const": name},
                "data": {
                    "type": "string",
                    "contentMediaType": "application/json",
                    "contentSchema": {"$ref": f"#/components/schemas/{data}"},
                },
                "id": {"type": "string"},
            }
        }
        for name, data in (
            ("text", "PageText"),
            ("reset", "PageReset"),
            ("page", "DocumentPage"),
            ("problem", "Problem"),
        )
    ],
}


async def _seat(request: Request, caller: Reader) -> AsyncIterator[None]:
    """One of the places for those who watch, until the stream has ended."""
    limits = request.app.state.limits
    with limits.watchers.taken(WHAT), limits.tenant_watchers.taken(caller.tenant, WHAT):
        yield


@router.get(
    "/v1/jobs/{job_id}/pages/{page_no}/events",
    summary="Watch a page being read",
    response_class=Response,
    responses={
        200: {
            "description": "Events of the page: `text`, `reset`, `problem`, and `page` at the end.",
            "content": {EventStream.media_type: {"itemSchema": _EVENT, "example": examples.EVENTS}},
        },
        **documented(*ALWAYS, NotFound, JobDeleted, ResultExpired, TooManyInFlight, Overloaded),
    },
    dependencies=[Depends(_seat)],
)
async def watch_page(
    request: Request,
    job_id: JobId,
    page_no: PageNo,
    caller: Reader,
    actor: Acting,
    last_event_id: Annotated[
        str | None, Header(description="The id of the last event of an earlier stream.")
    ] = None,
) -> Response:
    """The text of a page as it grows, as server-sent events, and the page once it is final.

    `text` has more of what is read; `reset` says that the page is read anew, so that all text so
    far is void; `page` is the page as `GET .../pages/{page_no}` answers it, and the last event;
    `problem` is the last where there will be no page any more. A stream that ends with neither goes
    on where its client asks again with `Last-Event-ID`. Text comes from engines that have some
    before the end; it may be cut off or missing: what stands is what `page` says.
    """
    state = request.app.state
    watch = Watch(
        Watched(caller.tenant, actor, jobs.parse_id(job_id), page_no),
        last_event_id=last_event_id,
        looks=state.limits.looks,
    )
    first = await watch.look()
    problem = partial(errors.details, request)
    return EventStream(watch.events(first, draining=state.draining, problem=problem))
