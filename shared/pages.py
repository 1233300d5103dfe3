"""Pages: made by prepare, ended by recognise, counted on their job's row.

The page that makes all pages of a job final queues the work to assemble them; the job's row is
locked first, so exactly one page is the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared import jobs, prepared, storage, work
from shared.document import DocumentPage, FinishReason, ProblemFacts, Recognition, Usage
from shared.errors import OctavoError
from shared.models import Job, Page, StoredRecognition, Work
from shared.page_range import PageRange
from shared.schema import NEWER
from shared.status import WorkKind, WorkStatus
from shared.work import Claim

REVIEW_BELOW_CONFIDENCE = 0.8
"""Mean confidence below which a page is flagged. Upright pages read at 0.98 and more, pages upside
down at 0.46 to 0.74 (PP-OCRv6 tiny)."""


@dataclass(frozen=True)
class Rendered:
    """A page that prepare has put into the store, or could not render."""

    page_no: int
    image_key: str | None = None
    width: int | None = None
    height: int | None = None
    error: OctavoError | None = None

    def facts(self) -> dict[str, Any]:
        """The page as JSON."""
        return {
            "page_no": self.page_no,
            "image_key": self.image_key,
            "width": self.width,
            "height": self.height,
            "error": self.error.facts() if self.error else None,
        }


_HELD = """
    job AS (
      SELECT id, tenant, engine, priority FROM jobs
      WHERE id = :job_id AND status IN ('queued', 'running') FOR NO KEY UPDATE),
    held AS (
      SELECT work.id, job.id AS job_id, job.tenant, job.engine, job.priority FROM work, job
      WHERE work.id = :id AND work.attempt = :attempt AND work.status = 'running'
      FOR NO KEY UPDATE OF work)
"""
"""The claim of prepare, where it still holds, with its job: locked both, the job first."""


def numbers(session: Session, job_id: UUID, status: WorkStatus) -> list[int]:
    """The numbers of a job's pages that are in a status, in order."""
    query = (
        select(Work.page_no)
        .where(Work.job_id == job_id, Work.kind == WorkKind.RECOGNISE, Work.status == status)
        .order_by(Work.page_no)
    )
    return list(session.scalars(query))


@dataclass(frozen=True)
class Begun:
    """What prepare has before it."""

    missing: list[int]
    """The pages that are still to be rendered, in order."""
    unread: int
    """How many of those that are there already are not final."""


_BEGIN = prepared.statement(
    "begin_pages",
    f"""
    WITH {_HELD}
    UPDATE jobs SET status = 'running', started_at = coalesce(started_at, now()),
      source_pages = coalesce(source_pages, :source_pages),
      pages_total = coalesce(pages_total, :pages_total),
      warnings = CASE WHEN pages_total IS NULL THEN warnings || :warnings ELSE warnings END
    FROM held WHERE jobs.id = held.job_id
    RETURNING ARRAY(SELECT page_no FROM pages WHERE pages.job_id = jobs.id) AS known,
      (SELECT count(*) FROM work WHERE work.job_id = jobs.id
         AND kind = '{WorkKind.RECOGNISE}' AND work.status IN ('queued', 'running')) AS unread
    """,  # noqa: S608 - of our own words
    id="bigint",
    attempt="integer",
    job_id="uuid",
    source_pages="integer",
    pages_total="integer",
    warnings="text[]",
)


def begin(session: Session, held: Claim, job: Job, source_pages: int) -> Begun | None:
    """Write down how many pages a job has, before the first of them; None: the claim is lost.

    One statement. Raises InvalidPageRange where the job's range chooses none of them.
    """
    source_pages = job.source_pages or source_pages
    chosen = jobs.chosen_pages(job.options, source_pages)
    values = {
        "id": held.id,
        "attempt": held.attempt,
        "job_id": held.job_id,
        "source_pages": source_pages,
        "pages_total": len(chosen),
        "warnings": _dropped(job.options, source_pages),
    }
    row = session.execute(_BEGIN, values).one_or_none()
    if row is None:
        return None
    known = set(row.known)
    return Begun([page_no for page_no in chosen if page_no not in known], row.unread)


_ADD = prepared.statement(
    "add_pages",
    f"""
    WITH {_HELD},
    rendered AS (
      SELECT * FROM jsonb_to_recordset(:rendered)
        AS page (page_no int, image_key text, width int, height int, error jsonb)),
    kept AS (
      INSERT INTO pages (job_id, page_no, tenant, image_key, width, height)
      SELECT job_id, page_no, tenant, image_key, width, height FROM held, rendered
      ON CONFLICT DO NOTHING),
    added AS (
      INSERT INTO work (tenant, job_id, kind, queue, priority, page_no, status, error, turn_at)
      SELECT tenant, job_id, '{WorkKind.RECOGNISE}', '{work.recognise_queue("")}' || engine,
        priority, page_no, CASE WHEN error IS NULL THEN 'queued' ELSE 'failed' END, error,
        now() + make_interval(secs => :gives_way * (:behind - 1
          + row_number() OVER (ORDER BY page_no)))
      FROM held, rendered
      ON CONFLICT DO NOTHING RETURNING queue, status),
    failed AS (SELECT count(*) AS pages FROM added WHERE status = 'failed'),
    counted AS (
      UPDATE jobs SET pages_failed = pages_failed + failed.pages
      FROM held, failed WHERE jobs.id = held.job_id AND failed.pages > 0
      RETURNING pages_succeeded + pages_failed = pages_total AS are_all),
    assembling AS (
      INSERT INTO work (tenant, job_id, kind, queue, priority)
      SELECT tenant, job_id, '{WorkKind.ASSEMBLE}', '{WorkKind.ASSEMBLE}', priority
      FROM held, counted WHERE are_all ON CONFLICT DO NOTHING RETURNING queue),
    ended AS (
      UPDATE work SET status = :ends_as, error = :error, lease_until = NULL FROM held
      WHERE work.id = held.id AND :ends_as IS NOT NULL)
    SELECT count(*) = 1, (SELECT count(pg_notify('{work.BELL}', queue)) FROM (
        SELECT queue FROM added WHERE status = 'queued' UNION SELECT queue FROM assembling) AS due)
    FROM held
    """,  # noqa: S608 - of our own words
    id="bigint",
    attempt="integer",
    job_id="uuid",
    rendered="jsonb",
    behind="integer",
    gives_way="float",
    ends_as="text",
    error="jsonb",
).bindparams(bindparam("rendered", type_=JSONB), bindparam("error", type_=JSONB(none_as_null=True)))


def add(
    session: Session,
    held: Claim,
    rendered: Sequence[Rendered],
    *,
    behind: int = 0,
    ends_as: WorkStatus | None = None,
    error: OctavoError | None = None,
) -> bool:
    """Insert pages with the work to recognise them; False where the claim of prepare is lost.

    One statement. `behind` is how many unread pages of the job are there before these. Pages that
    are there already, from an earlier attempt, stay as they are. With the last of them prepare
    `ends_as` it says, because of an `error` where it has one.
    """
    values = {
        "id": held.id,
        "attempt": held.attempt,
        "job_id": held.job_id,
        "rendered": [page.facts() for page in rendered],
        "behind": behind,
        "gives_way": work.GIVES_WAY_SECONDS,
        "ends_as": ends_as,
        "error": error.facts() if error else None,
    }
    return bool(session.execute(_ADD, values).scalar_one())


def give_up(session: Session, held: Claim, error: OctavoError) -> bool:
    """End prepare for good: pages it has not rendered fail, or the job where there are none."""
    job = jobs.lock(session, held.job_id)
    known = set(session.scalars(select(Page.page_no).where(Page.job_id == held.job_id)))
    if job is None or job.source_pages is None or not known:
        return jobs.fail(session, held, error)
    missing = set(jobs.chosen_pages(job.options, job.source_pages)) - known
    failed = [Rendered(page_no, error=error) for page_no in sorted(missing)]
    return add(session, held, failed, ends_as=WorkStatus.FAILED, error=error)


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


_REUSE = (
    """
    INSERT INTO pages (job_id, page_no, tenant, width, height)
    SELECT :new, page_no, tenant, width, height FROM pages
    WHERE job_id = :old AND page_no = ANY(:page_nos)
    """,
    """
    INSERT INTO work (tenant, job_id, kind, page_no, queue, priority, status, attempt)
    SELECT tenant, :new, kind, page_no, queue, priority, status, attempt FROM work
    WHERE job_id = :old AND kind = 'recognise' AND page_no = ANY(:page_nos)
    """,
    """
    INSERT INTO recognitions (job_id, page_no, tenant, attempt, needs_review, confidence, body)
    SELECT :new, page_no, tenant, attempt, needs_review, confidence, body FROM recognitions
    WHERE job_id = :old AND page_no = ANY(:page_nos)
    """,
)


def reuse(session: Session, old: Job, new: Job, page_nos: Sequence[int]) -> None:
    """Give a new job good pages of an old one, so that they are not read again."""
    values = {"old": old.id, "new": new.id, "page_nos": list(page_nos)}
    for statement in _REUSE:
        session.execute(text(statement), values)
    new.source_pages, new.pages_total = old.source_pages, old.pages_total
    new.pages_succeeded = len(page_nos)


def _dropped(options: dict[str, Any], source_pages: int) -> list[str]:
    """What to tell of a page range that goes past the end."""
    chosen = options.get("pages")
    if chosen is None or not PageRange.parse(chosen).exceeds(source_pages):
        return []
    return [f"pages: the document has {source_pages} pages; what lies beyond was left out"]
