"""New pages: made by prepare as it renders them, or taken over from a job that is read again.

A page comes with the work to recognise it, a window of them in one statement; what becomes of them
is in `shared.pages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from shared import jobs, prepared, work
from shared.errors import OctavoError
from shared.models import Job, Page
from shared.page_range import PageRange
from shared.status import WorkKind, WorkStatus
from shared.work import Claim


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


@dataclass(frozen=True)
class Begun:
    """What prepare has before it."""

    missing: list[int]
    """The pages that are still to be rendered, in order."""
    unread: int
    """How many of those that are there already are not final."""
    read: int = 0
    """How many are."""
    seconds: float = 0.0
    """Since the job was started."""


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
         AND kind = '{WorkKind.RECOGNISE}' AND work.status IN ('queued', 'running')) AS unread,
      extract(epoch FROM now() - started_at)::float AS seconds
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
    missing = [page_no for page_no in chosen if page_no not in known]
    return Begun(missing, row.unread, read=len(known) - row.unread, seconds=row.seconds)


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
    new AS (
      SELECT count(*) AS pages, count(*) FILTER (WHERE status = 'failed') AS failed FROM added),
    counted AS (
      UPDATE jobs SET pages_failed = pages_failed + new.failed
      FROM held, new WHERE jobs.id = held.job_id AND new.failed > 0
      RETURNING pages_succeeded + pages_failed = pages_total AS are_all),
    assembling AS (
      INSERT INTO work (tenant, job_id, kind, queue, priority)
      SELECT tenant, job_id, '{WorkKind.ASSEMBLE}', '{WorkKind.ASSEMBLE}', priority
      FROM held, counted WHERE are_all ON CONFLICT DO NOTHING RETURNING queue),
    ended AS (
      UPDATE work SET status = :ends_as, error = :error, lease_until = NULL FROM held
      WHERE work.id = held.id AND :ends_as IS NOT NULL),
    gone_on AS (
      UPDATE work SET failures = 0 FROM held, new
      WHERE work.id = held.id AND :ends_as IS NULL AND work.failures > 0 AND new.pages > 0)
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
    are there already, from an earlier attempt, stay as they are. Those that are new make good how
    often prepare failed before. With the last of them prepare `ends_as` it says, because of an
    `error` where it has one.
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
