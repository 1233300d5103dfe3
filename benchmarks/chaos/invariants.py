"""What must hold of the rows once everything is over, in SQL.

Each invariant is a query for what breaks it. They ask nothing of how the rows came to be, so they
hold after any campaign, and on any database of Octavo that is at rest.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, text

EXAMPLES = 5
"""Of what breaks an invariant, as many are shown."""


class Harm(StrEnum):
    """What a broken invariant means to whoever sent the document."""

    LOST = "lost"
    DOUBLED = "doubled"
    STUCK = "stuck"
    WRONG = "wrong"


@dataclass(frozen=True)
class Invariant:
    """A sentence that is true, and the rows that would make it untrue, one column each."""

    says: str
    harm: Harm
    broken_by: str


@dataclass(frozen=True)
class Breach:
    """An invariant that does not hold."""

    says: str
    harm: Harm
    count: int
    examples: tuple[str, ...]


INVARIANTS = (
    Invariant(
        "every acknowledged job is there, or was deleted",
        Harm.LOST,
        """
        SELECT id FROM unnest(cast(:acknowledged AS uuid[])) AS acknowledged(id)
        WHERE id NOT IN (SELECT id FROM jobs) AND id NOT IN (SELECT job_id FROM tombstones)
        """,
    ),
    Invariant(
        "every job is final",
        Harm.STUCK,
        "SELECT id FROM jobs WHERE status IN ('queued', 'running')",
    ),
    Invariant(
        "every unit of work is final",
        Harm.STUCK,
        "SELECT id FROM work WHERE status IN ('queued', 'running')",
    ),
    Invariant(
        "no deleted job is still there",
        Harm.STUCK,
        "SELECT id FROM jobs WHERE deleted_at IS NOT NULL",
    ),
    Invariant(
        "every succeeded page has its recognition",
        Harm.LOST,
        """
        SELECT job_id, page_no FROM work JOIN jobs ON jobs.id = job_id
        WHERE kind = 'recognise' AND work.status = 'succeeded' AND jobs.status <> 'expired'
          AND NOT EXISTS (SELECT FROM recognitions r
                          WHERE r.job_id = work.job_id AND r.page_no = work.page_no)
        """,
    ),
    Invariant(
        "every recognition is of a succeeded page, and of its last attempt",
        Harm.DOUBLED,
        """
        SELECT r.job_id, r.page_no FROM recognitions r
        WHERE NOT EXISTS (SELECT FROM work w WHERE w.job_id = r.job_id AND w.page_no = r.page_no
                          AND w.kind = 'recognise' AND w.status = 'succeeded'
                          AND w.attempt = r.attempt)
        """,
    ),
    Invariant(
        "a job counts as many good pages as it has",
        Harm.DOUBLED,
        """
        SELECT id FROM jobs WHERE pages_succeeded <> (
          SELECT count(*) FROM work WHERE job_id = jobs.id AND kind = 'recognise'
            AND status = 'succeeded')
        """,
    ),
    Invariant(
        "a job counts as many failed pages as it has",
        Harm.DOUBLED,
        """
        SELECT id FROM jobs WHERE pages_failed <> (
          SELECT count(*) FROM work WHERE job_id = jobs.id AND kind = 'recognise'
            AND status = 'failed')
        """,
    ),
    Invariant(
        "a job's tokens are those of all readings of its pages",
        Harm.DOUBLED,
        # What a page was read as before the reading that stands is in `tries`: the recognition's, or
        # the page's own where it has none (yet).
        """
        SELECT id FROM jobs WHERE status <> 'expired' AND retry_of IS NULL AND (
          coalesce(vision_tokens, 0), coalesce(output_tokens, 0)) <> (
          SELECT coalesce(sum((usage ->> 'vision_tokens')::bigint), 0),
                 coalesce(sum((usage ->> 'output_tokens')::bigint), 0)
          FROM (
            SELECT jsonb_path_query(body::jsonb -> 'tries', '$[*].usage') AS usage
            FROM recognitions WHERE job_id = jobs.id
            UNION ALL
            SELECT body::jsonb -> 'usage' FROM recognitions
            WHERE job_id = jobs.id AND body::jsonb -> 'tries' = '[]'
            UNION ALL
            SELECT jsonb_path_query(tries, '$[*].usage') FROM pages
            WHERE job_id = jobs.id AND NOT EXISTS (
              SELECT 1 FROM recognitions r WHERE (r.job_id, r.page_no) = (jobs.id, pages.page_no))
          ) AS spent)
        """,
    ),
    Invariant(
        "a job that was read has all its pages, each with its work",
        Harm.LOST,
        """
        SELECT id FROM jobs WHERE status IN ('succeeded', 'partially_succeeded') AND (
          pages_succeeded + pages_failed <> pages_total
          OR pages_total <> (SELECT count(*) FROM pages WHERE job_id = jobs.id)
          OR pages_total <> (SELECT count(*) FROM work WHERE job_id = jobs.id
                             AND kind = 'recognise'))
        """,
    ),
    Invariant(
        "the pages of any job are succeeded, failed or cancelled, and no more than it has",
        Harm.WRONG,
        """
        SELECT id FROM jobs WHERE pages_total < (
          SELECT count(*) FROM work WHERE job_id = jobs.id AND kind = 'recognise'
            AND status IN ('succeeded', 'failed', 'cancelled'))
        """,
    ),
    Invariant(
        "a job is called what its pages make it",
        Harm.WRONG,
        """
        SELECT id FROM jobs WHERE status IN ('succeeded', 'partially_succeeded')
          AND (status = 'succeeded') <> (pages_succeeded = pages_total)
        """,
    ),
    Invariant(
        "a job that was read has one result, of the last attempt to assemble it",
        Harm.LOST,
        """
        SELECT id FROM jobs WHERE status IN ('succeeded', 'partially_succeeded')
          AND NOT EXISTS (SELECT FROM work w WHERE w.job_id = jobs.id AND w.kind = 'assemble'
                          AND w.status = 'succeeded' AND w.attempt = jobs.result_attempt)
        """,
    ),
    Invariant(
        "no job that was not read has a result",
        Harm.WRONG,
        """
        SELECT id FROM jobs WHERE status NOT IN ('succeeded', 'partially_succeeded')
          AND result_attempt IS NOT NULL
        """,
    ),
    Invariant(
        "there is one unit of work for each page, and one of each other kind for a job",
        Harm.DOUBLED,
        "SELECT job_id, kind, page_no FROM work GROUP BY job_id, kind, page_no HAVING count(*) > 1",
    ),
    Invariant(
        "a final job says when it ended, and a failed one why",
        Harm.WRONG,
        """
        SELECT id FROM jobs WHERE status NOT IN ('queued', 'running')
          AND (finished_at IS NULL OR (status = 'failed') <> (error IS NOT NULL)
               AND status <> 'expired')
        """,
    ),
    Invariant(
        "final work has no lease",
        Harm.WRONG,
        """
        SELECT id FROM work WHERE status IN ('succeeded', 'failed', 'cancelled')
          AND lease_until IS NOT NULL
        """,
    ),
)

ONE_JOB_A_KEY = Invariant(
    "a submission that was sent several times made one job",
    Harm.DOUBLED,
    """
    SELECT metadata ->> 'submission' FROM jobs WHERE metadata ? 'submission'
    GROUP BY metadata ->> 'submission' HAVING count(*) > 1
    """,
)
"""Holds where the gateway honours the header Idempotency-Key."""


def breaches(
    connection: Connection,
    acknowledged: Collection[UUID],
    invariants: Collection[Invariant] = INVARIANTS,
) -> list[Breach]:
    """Those of the invariants that do not hold; `acknowledged` are jobs that somebody has a 202 for."""
    found = (_breach(connection, invariant, acknowledged) for invariant in invariants)
    return [breach for breach in found if breach is not None]


def _breach(
    connection: Connection, invariant: Invariant, acknowledged: Collection[UUID]
) -> Breach | None:
    asks = ":acknowledged" in invariant.broken_by
    values = {"acknowledged": list(map(str, acknowledged))} if asks else {}
    rows = connection.execute(text(invariant.broken_by), values).all()
    if not rows:
        return None
    examples = tuple(" ".join(map(str, row)) for row in rows[:EXAMPLES])
    return Breach(invariant.says, invariant.harm, len(rows), examples)
