"""Glances: the text of a page for those who watch it being read, while somebody does.

A row says until when a page is watched. The gateway makes and renews it as long as a reader is
there; the worker that holds the page writes the text so far into it; the sweeper takes it away once
nobody looks any more. Nothing here is kept: the table is not logged, text may be late, cut off or
missing, and what the page was read as stands elsewhere.

Nobody waits for another's row: a worker and the sweeper leave out what is locked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import CursorResult, Text, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BIGINT, INTEGER
from sqlalchemy.orm import Session

from shared.work import Claim

WANTED_SECONDS = 10
"""A page is watched for so long after a look at it."""

FORGOTTEN_AT_ONCE = 1_000


@dataclass(frozen=True)
class Place:
    """How much of a page's text somebody has, and of which attempt."""

    attempt: int = 0
    characters: int = 0


@dataclass(frozen=True)
class Sight:
    """What a look at a page shows that is being read, or waits for that."""

    attempt: int  # that reads it, or did last
    more: str  # of that attempt's text than the place has
    lapses: bool  # whether it soon will not be watched any more, unless that is renewed


_LOOK = text(
    # The text of an attempt that is over is no text of the page: the next one begins anew.
    """
    SELECT work.attempt,
      CASE WHEN glances.attempt = work.attempt THEN
        substr(glances.text, CASE WHEN work.attempt = :attempt THEN :characters + 1 ELSE 1 END)
        ELSE '' END AS more,
      coalesce(glances.wanted_until < now() + make_interval(secs => :half), true) AS lapses
    FROM work LEFT JOIN glances USING (job_id, page_no)
    WHERE work.tenant = :tenant AND work.job_id = :job_id AND work.kind = 'recognise'
      AND work.page_no = :page_no AND work.status IN ('queued', 'running')
    """
).bindparams(bindparam("characters", type_=INTEGER))


def look(session: Session, tenant: UUID, job_id: UUID, page_no: int, place: Place) -> Sight | None:
    """What there is to see from `place` on; None where the page is final, or not known yet."""
    values = {
        "tenant": tenant,
        "job_id": job_id,
        "page_no": page_no,
        "attempt": place.attempt,
        "characters": place.characters,
        "half": WANTED_SECONDS / 2,
    }
    row = session.execute(_LOOK, values).one_or_none()
    return None if row is None else Sight(row.attempt, row.more, row.lapses)


_WATCH = text(
    """
    INSERT INTO glances (job_id, page_no, tenant, wanted_until)
    SELECT id, :page_no, tenant, now() + make_interval(secs => :wanted) FROM jobs
    WHERE id = :job_id AND tenant = :tenant AND deleted_at IS NULL FOR KEY SHARE
    ON CONFLICT (job_id, page_no) DO UPDATE SET wanted_until = excluded.wanted_until
    """
)


def watch(session: Session, tenant: UUID, job_id: UUID, page_no: int) -> None:
    """Have the text of a page told, from now on and for a while. Nothing for a deleted job."""
    values = {"tenant": tenant, "job_id": job_id, "page_no": page_no, "wanted": WANTED_SECONDS}
    session.execute(_WATCH, values)


class Told(NamedTuple):
    """What the readers of a page can see: of which attempt (None: none), and how many bytes."""

    attempt: int | None
    bytes: int


_WATCHED = text(
    """
    SELECT held.id, glances.attempt, octet_length(glances.text) AS bytes
    FROM unnest(:ids, :job_ids, :page_nos) AS held(id, job_id, page_no)
    JOIN glances USING (job_id, page_no) WHERE glances.wanted_until > now()
    """
).bindparams(
    bindparam("ids", type_=ARRAY(BIGINT)),
    bindparam("job_ids", type_=ARRAY(Uuid)),
    bindparam("page_nos", type_=ARRAY(INTEGER)),
)


def watched(session: Session, held: Sequence[Claim]) -> dict[int, Told]:
    """The ids of the held pages that somebody watches, each with what its readers can see."""
    values = {
        "ids": [claim.id for claim in held],
        "job_ids": [claim.job_id for claim in held],
        "page_nos": [claim.page_no for claim in held],
    }
    rows = session.execute(_WATCHED, values)
    return {row.id: Told(row.attempt, row.bytes) for row in rows}


_TELL = text(
    """
    WITH news AS (
      SELECT glances.ctid, fresh.attempt, fresh.text
      FROM unnest(:job_ids, :page_nos, :attempts, :texts)
        AS fresh(job_id, page_no, attempt, text)
      JOIN glances USING (job_id, page_no)
      WHERE coalesce(glances.attempt, 0) <= fresh.attempt
      FOR NO KEY UPDATE OF glances SKIP LOCKED)
    UPDATE glances SET attempt = news.attempt, text = news.text
    FROM news WHERE glances.ctid = news.ctid
    """
).bindparams(
    bindparam("job_ids", type_=ARRAY(Uuid)),
    bindparam("page_nos", type_=ARRAY(INTEGER)),
    bindparam("attempts", type_=ARRAY(INTEGER)),
    bindparam("texts", type_=ARRAY(Text)),
)


def tell(session: Session, texts: Collection[tuple[Claim, str]]) -> None:
    """Show readers the text of held pages so far; where a later attempt was told, nothing."""
    values = {
        "job_ids": [claim.job_id for claim, _ in texts],
        "page_nos": [claim.page_no for claim, _ in texts],
        "attempts": [claim.attempt for claim, _ in texts],
        "texts": [said for _, said in texts],
    }
    session.execute(_TELL, values)


_FORGET = text(
    """
    DELETE FROM glances WHERE ctid IN (
      SELECT ctid FROM glances WHERE wanted_until < now() LIMIT :most FOR UPDATE SKIP LOCKED)
    """
)


def forget(session: Session) -> int:
    """Remove the texts of pages that nobody watches; how many."""
    result = session.execute(_FORGET, {"most": FORGOTTEN_AT_ONCE})
    assert isinstance(result, CursorResult)
    return result.rowcount
