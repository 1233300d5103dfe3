"""Pages: ended by recognise, counted on their job's row, read by clients and by assemble.

How they come to be is in `shared.new_pages`.

The page that makes all pages of a job final queues the work to assemble them; the job's row is
locked first, so exactly one page is the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared import prepared, storage, work
from shared.document import DocumentPage, FinishReason, ProblemFacts, Recognition, Usage
from shared.errors import OctavoError
from shared.models import Job, Page, StoredRecognition, Work
from shared.schema import NEWER
from shared.status import WorkKind, WorkStatus
from shared.work import Claim

REVIEW_BELOW_CONFIDENCE = 0.8
"""Mean confidence below which a page is flagged. Upright pages read at 0.98 and more, pages upside
down at 0.46 to 0.74 (PP-OCRv6 tiny)."""


def numbers(session: Session, job_id: UUID, status: WorkStatus) -> list[int]:
    """The numbers of a job's pages that are in a status, in order."""
    query = (
        select(Work.page_no)
        .where(Work.job_id == job_id, Work.kind == WorkKind.RECOGNISE, Work.status == status)
        .order_by(Work.page_no)
    )
    return list(session.scalars(query))


_ASSIGNMENT = prepared.statement(
    "assignment",
    """
    SELECT pages.image_key, jobs.options, pages.tries IS NOT NULL AS is_again
    FROM pages JOIN jobs ON jobs.id = pages.job_id
    WHERE pages.job_id = :job_id AND pages.page_no = :page_no
    """,
    job_id="uuid",
    page_no="integer",
)


def assignment(session: Session, held: Claim) -> tuple[str, dict[str, Any], bool] | None:
    """Where the image of a claimed page lies, its job's options, and whether it was read before.

    None where the job is gone.
    """
    values = {"job_id": held.job_id, "page_no": held.page_no}
    row = session.execute(_ASSIGNMENT, values).one_or_none()
    if row is None:
        return None
    assert row.image_key is not None, "a page without an image is not queued"
    return row.image_key, row.options, row.is_again


# One statement, because every page of every job goes through it, and so that the job's row is locked
# no longer than it takes. That row is locked before the page's work is touched, and counted on as it
# is after the wait, not as it was before.
_END = prepared.statement(
    "end_page",
    f"""
    WITH job AS (SELECT id FROM jobs WHERE id = :job_id FOR NO KEY UPDATE),
    ended AS (
      UPDATE work SET status = :status, error = :error, lease_until = NULL FROM job
      WHERE work.id = :id AND work.attempt = :attempt AND work.status = 'running'
      RETURNING work.job_id, work.page_no, work.tenant, work.attempt),
    stored AS (
      INSERT INTO recognitions (job_id, page_no, tenant, attempt, needs_review, confidence, body)
      SELECT job_id, page_no, tenant, attempt, :needs_review, :confidence, :body FROM ended
      WHERE :status = 'succeeded'),
    settled AS (
      UPDATE pages SET draft = NULL FROM ended WHERE pages.job_id = ended.job_id
        AND pages.page_no = ended.page_no AND pages.draft IS NOT NULL),
    counted AS (
      UPDATE jobs SET pages_succeeded = pages_succeeded + (:status = 'succeeded')::int,
        pages_failed = pages_failed + (:status = 'failed')::int,
        vision_tokens = coalesce(vision_tokens + :vision_tokens, :vision_tokens, vision_tokens),
        output_tokens = coalesce(output_tokens + :output_tokens, :output_tokens, output_tokens),
        engine_seconds = engine_seconds + :engine_seconds
      FROM ended WHERE jobs.id = ended.job_id
      RETURNING jobs.id, jobs.tenant, jobs.priority,
        pages_succeeded + pages_failed = pages_total AS are_all),
    assembling AS (
      INSERT INTO work (tenant, job_id, kind, queue, priority, page_no)
      SELECT tenant, id, '{WorkKind.ASSEMBLE}', '{WorkKind.ASSEMBLE}', priority, 0 FROM counted
      WHERE are_all ON CONFLICT DO NOTHING RETURNING queue)
    SELECT count(*) = 1, (SELECT pg_notify('{work.BELL}', queue) FROM assembling) FROM ended
    """,  # noqa: S608 - of our own words
    id="bigint",
    attempt="integer",
    job_id="uuid",
    status="text",
    error="jsonb",
    needs_review="boolean",
    confidence="float",
    body="text",
    vision_tokens="integer",
    output_tokens="integer",
    engine_seconds="float",
).bindparams(bindparam("error", type_=JSONB(none_as_null=True)))

_NOTHING_READ: dict[str, Any] = {
    "needs_review": None,
    "confidence": None,
    "body": None,
    "vision_tokens": None,
    "output_tokens": None,
    "engine_seconds": 0,
}


def succeed(
    session: Session,
    held: Claim,
    recognition: Recognition,
    *,
    spent: Usage | None = None,
    is_flawed: bool = False,
) -> bool:
    """Store what was read of a page; False where the claim is lost, and nothing is stored.

    `spent` is what is still to be counted of it: all, unless something else is given.
    """
    usage = spent or recognition.usage
    read = {
        "needs_review": is_flawed or needs_review(recognition),
        "confidence": recognition.confidence,
        "body": recognition.model_dump_json(),
        "vision_tokens": usage.vision_tokens,
        "output_tokens": usage.output_tokens,
        "engine_seconds": usage.engine_seconds,
    }
    return _end(session, held, {"status": WorkStatus.SUCCEEDED, "error": None, **read})


def fail(session: Session, held: Claim, error: OctavoError) -> bool:
    """End a page with an error; False where the claim is lost."""
    failed = {"status": WorkStatus.FAILED, "error": error.facts()}
    return _end(session, held, failed | _NOTHING_READ)


def _end(session: Session, held: Claim, values: dict[str, Any]) -> bool:
    claimed = {"id": held.id, "attempt": held.attempt, "job_id": held.job_id}
    return bool(session.execute(_END, claimed | values).scalar_one())


def needs_review(recognition: Recognition) -> bool:
    """Whether a person should look: the text is cut off, loops, or was read unsurely."""
    if recognition.finish_reason is not FinishReason.STOP:
        return True
    return recognition.confidence is not None and recognition.confidence < REVIEW_BELOW_CONFIDENCE


def read(
    session: Session, job_id: UUID, *, after: int = 0, most: int = 50
) -> Sequence[Row[Page, Work, float | None, bool]]:
    """Pages in order with their work, from after page `after`, without what was read."""
    query = (
        select(Page, Work, StoredRecognition.confidence, StoredRecognition.needs_review)
        .join(Work, (Work.job_id == Page.job_id) & (Work.page_no == Page.page_no))
        .outerjoin(
            StoredRecognition,
            (StoredRecognition.job_id == Page.job_id) & (StoredRecognition.page_no == Page.page_no),
        )
        .where(Page.job_id == job_id, Page.page_no > after, Work.kind == WorkKind.RECOGNISE)
        .order_by(Page.page_no)
        .limit(most)
    )
    return session.execute(query).all()


_FINISHED = prepared.statement(
    "finished_pages",
    f"""
    SELECT pages.page_no, width, height, work.status, work.error, body, needs_review
    FROM pages JOIN work ON work.job_id = pages.job_id AND work.page_no = pages.page_no
      AND work.kind = '{WorkKind.RECOGNISE}' AND work.status NOT IN ('queued', 'running')
    LEFT JOIN recognitions AS read
      ON read.job_id = pages.job_id AND read.page_no = pages.page_no
    WHERE pages.job_id = :job_id AND pages.page_no > :after
    ORDER BY pages.page_no LIMIT :most
    """,  # noqa: S608 - of our own words
    job_id="uuid",
    after="integer",
    most="integer",
)


def finished(
    session: Session, job_id: UUID, *, after: int = 0, most: int = 50
) -> list[DocumentPage]:
    """Pages that are final, in order, from after page `after`, with what was read or why not."""
    values = {"job_id": job_id, "after": after, "most": most}
    return [_document_page(row) for row in session.execute(_FINISHED, values)]


def _document_page(row: Row[Any]) -> DocumentPage:
    if row.body is None:
        facts = ProblemFacts.model_validate(row.error, extra=NEWER) if row.error else None
        return DocumentPage(page=row.page_no, status=WorkStatus(row.status), error=facts)
    return DocumentPage.of(
        row.page_no,
        width=row.width,
        height=row.height,
        recognition=Recognition.model_validate_json(row.body, extra=NEWER),
        needs_review=row.needs_review,
    )


def figure_key(session: Session, job: Job, page_no: int, number: int) -> str | None:
    """Where that figure of a page lies; None where what was read of the page refers to none."""
    stored = session.get(StoredRecognition, (job.id, page_no))
    if stored is None:
        return None
    blocks = Recognition.model_validate_json(stored.body, extra=NEWER).blocks
    if all(block.figure != number for block in blocks):
        return None
    return storage.figure_key(job.tenant, job.id, page_no, stored.attempt, number)


def taken_over(session: Session, job_id: UUID) -> set[tuple[int, int]]:
    """The pages of a job that an earlier one read, each with the attempt that did."""
    query = (
        select(Page.page_no, StoredRecognition.attempt)
        .join(
            StoredRecognition,
            (StoredRecognition.job_id == Page.job_id) & (StoredRecognition.page_no == Page.page_no),
        )
        .where(Page.job_id == job_id, Page.image_key.is_(None))
    )
    return {(row.page_no, row.attempt) for row in session.execute(query)}
