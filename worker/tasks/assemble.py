"""Assemble: make one document of a job's pages, in every format, and end the job.

Pages are read and written in bounded numbers, so that a document of any length takes the same
memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from shared import crash_point, jobs, pages, storage
from shared.document import DocumentHeading, DocumentPage
from shared.errors import NoPageReadable, OctavoError, restored
from shared.formats import Format
from shared.models import Job
from shared.status import JobStatus
from worker.app import app
from worker.heartbeat import Held
from worker.pipeline.export import as_json, as_markdown, as_text
from worker.tasks.attempt import ask, carry_out, store

PAGES_AT_ONCE = 50

EXPORTERS = {
    Format.JSON: as_json.pieces,
    Format.MARKDOWN: as_markdown.pieces,
    Format.TEXT: as_text.pieces,
}


@app.task(name="assemble")
def assemble(work_id: int) -> None:
    """Write a job's result and end it."""
    carry_out(work_id, _assemble)


def _assemble(held: Held) -> None:
    job = ask(held, lambda session: session.get(Job, held.claim.job_id), alone=True)
    if job is None:
        return
    read, outcome = _Pages(held), jobs.outcome(job)
    if outcome is JobStatus.FAILED:
        cause = _cause(read)
        store(held, lambda session: jobs.fail(session, held.claim, cause))
        return
    heading = DocumentHeading(
        job_id=jobs.public_id(job.id),
        status=outcome,
        source=jobs.source(job),
        usage=jobs.usage(job),
    )
    for chosen, exporter in EXPORTERS.items():
        _write(held, chosen, exporter(heading, read))
        held.touch()
    crash_point.reach("assemble", "stored")
    store(held, lambda session: jobs.finish(session, held.claim, outcome), alone=True)


def _write(held: Held, chosen: Format, pieces: Iterable[str]) -> None:
    claim = held.claim
    key = storage.result_key(claim.tenant, claim.job_id, claim.attempt, chosen.extension)
    writer, part = storage.Writer(key), bytearray()
    try:
        for piece in pieces:
            part += piece.encode()
            if len(part) >= storage.PART_BYTES:
                writer.part(bytes(part))
                part.clear()
        writer.close(bytes(part), chosen.media_type)
    except BaseException:
        writer.abort()
        raise


class _Pages:
    """A job's pages, in order, a few in memory at a time; those of a short one stay there."""

    def __init__(self, held: Held) -> None:
        self._held = held
        self._all: list[DocumentPage] | None = None

    def __iter__(self) -> Iterator[DocumentPage]:
        if self._all is not None:
            yield from self._all
            return
        last = 0
        while not self._held.lost:
            some = self._after(last)
            yield from some
            if len(some) < PAGES_AT_ONCE:
                self._all = some if last == 0 else None
                return
            last = some[-1].page
            self._held.touch()

    def _after(self, last: int) -> list[DocumentPage]:
        job_id = self._held.claim.job_id
        question = partial(pages.finished, job_id=job_id, after=last, most=PAGES_AT_ONCE)
        return ask(self._held, question, alone=True) or []


def _cause(read: Iterable[DocumentPage]) -> OctavoError:
    """Why no page is good: what the pages say, if they agree."""
    problems = {page.error.code: page.error for page in read if page.error is not None}
    if len(problems) != 1:
        return NoPageReadable()
    [problem] = problems.values()
    return restored(problem.code, problem.detail)
