"""Watching a page while it is read: what a client is told of it, event by event.

A stream holds no thread, no connection and no transaction between two looks at the database. Where
that is away it goes on trying. It may end at any time; the id of the last event says where to go on.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from threading import Event
from typing import Any
from uuid import UUID

import structlog
from anyio import CapacityLimiter, to_thread
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from sqlalchemy.orm import Session
from starlette.types import Receive, Scope, Send

from api import finished
from api.schemas import PageReset, PageText
from shared import audit, glances, jobs, keys
from shared.audit import Action, Actor
from shared.config import settings
from shared.db import transaction
from shared.document import DocumentPage
from shared.errors import DependencyUnavailable, OctavoError, PageNotFinished
from shared.glances import Place, Sight

LOOK_SECONDS = 0.5
AWAY_SECONDS = 3.0
"""Between two looks at a database that does not answer."""
KEEP_ALIVE_SECONDS = 15.0
RETRY_MILLISECONDS = 1000
CHECK_SECONDS = 5.0
"""Between two looks at the key by which a page is watched."""
LEAVING_SECONDS = 10.0
"""For the last of a stream to be taken by a client that reads slowly, or not at all."""

log = structlog.get_logger()

_PLACE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})", re.ASCII)


@dataclass(frozen=True)
class Watched:
    """The page that is watched, and by whom."""

    tenant: UUID
    actor: Actor
    job_id: UUID
    page_no: int


class Watch:
    """One client that watches one page. Used by one task."""

    def __init__(
        self, watched: Watched, *, last_event_id: str | None, looks: CapacityLimiter
    ) -> None:
        """`last_event_id` is that of an earlier stream, on which this one follows; any text."""
        self._watched = watched
        self._looks = looks
        self._place = _place(last_event_id)
        self._is_recorded = False
        self._away_until = 0.0
        self._check_at = time.monotonic() + CHECK_SECONDS

    async def look(self) -> Sight | DocumentPage:
        """The page, where it is final, or what is new of its text.

        Raises DependencyUnavailable, NotFound, JobDeleted or ResultExpired where it will never be,
        and Unauthenticated where the key is over.
        """
        return await to_thread.run_sync(self._look, limiter=self._looks)

    async def events(
        self,
        first: Sight | DocumentPage,
        *,
        draining: Event,
        problem: Callable[[OctavoError], dict[str, Any]],
    ) -> AsyncIterator[bytes]:
        """What is told from a first look on, until the page is final or the stream must end.

        `problem` makes the details of an error that comes in between.
        """
        yield format_sse_event(retry=RETRY_MILLISECONDS)
        seen: Sight | DocumentPage | None = first
        until, spoke_at = (time.monotonic() + settings().max_watch_seconds), time.monotonic()
        while not isinstance(seen, DocumentPage):
            for event in self._news(seen):
                yield event
                spoke_at = time.monotonic()
            if time.monotonic() - spoke_at >= KEEP_ALIVE_SECONDS:
                yield format_sse_event(comment="keep-alive")
                spoke_at = time.monotonic()
            if draining.is_set() or time.monotonic() >= until:
                return
            await asyncio.sleep(LOOK_SECONDS)
            try:
                seen = await self._next_look()
            except OctavoError as error:
                yield format_sse_event(event="problem", data_str=json.dumps(problem(error)))
                return
        yield _event("page", seen)

    async def _next_look(self) -> Sight | DocumentPage | None:
        """The next look; None where the database is away."""
        if time.monotonic() < self._away_until:
            return None
        try:
            return await self.look()
        except DependencyUnavailable:
            self._away_until = time.monotonic() + AWAY_SECONDS
            return None

    def _news(self, sight: Sight | None) -> Iterator[bytes]:
        if sight is None:
            return
        if sight.attempt != self._place.attempt:
            had, self._place = self._place, Place(sight.attempt)
            if had.characters:
                yield _event("reset", PageReset(attempt=sight.attempt), self._place)
        if sight.more:
            self._place = Place(sight.attempt, self._place.characters + len(sight.more))
            yield _event("text", PageText(text=sight.more, attempt=sight.attempt), self._place)

    # In a thread

    def _look(self) -> Sight | DocumentPage:
        with transaction(self._watched.tenant) as session:
            self._check_key(session)
            seen = self._seen(session)
            shows = isinstance(seen, DocumentPage) or bool(seen.more)
            if shows and not self._is_recorded:
                self._record(session)
        self._is_recorded |= shows
        return seen

    def _check_key(self, session: Session) -> None:
        now = time.monotonic()
        if now >= self._check_at:
            keys.check(session, self._watched.actor.name)
            self._check_at = now + CHECK_SECONDS

    def _seen(self, session: Session) -> Sight | DocumentPage:
        tenant, job_id, page_no = self._watched.tenant, self._watched.job_id, self._watched.page_no
        sight = glances.look(session, tenant, job_id, page_no, self._place)
        if sight is not None:
            if sight.lapses:
                glances.watch(session, tenant, job_id, page_no)
            return sight
        job = finished.unexpired(jobs.get(session, tenant, job_id))
        if page := finished.page(session, job, page_no):
            return page
        absence = finished.absence(job, page_no)
        if not isinstance(absence, PageNotFinished):
            raise absence
        return Sight(attempt=0, more="", lapses=False)

    def _record(self, session: Session) -> None:
        """Note the download, once for the whole stream."""
        watched = self._watched
        audit.record(
            session,
            watched.tenant,
            watched.actor,
            Action.PAGE_READ,
            jobs.public_id(watched.job_id),
            page=watched.page_no,
        )


class EventStream(StreamingResponse):
    """Events as they come. A client that does not take them is left in the end."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes]) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # proxies pass them on

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            async with asyncio.timeout(settings().max_watch_seconds + LEAVING_SECONDS):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            log.info("watcher_left")


def _event(name: str, data: BaseModel, place: Place | None = None) -> bytes:
    return format_sse_event(
        event=name,
        data_str=data.model_dump_json(),
        id=f"{place.attempt}-{place.characters}" if place else None,
    )


def _place(event_id: str | None) -> Place:
    """Where the event of that id led to; the beginning, where it is none of ours."""
    found = _PLACE.fullmatch(event_id or "")
    return Place(int(found[1]), int(found[2])) if found else Place()
