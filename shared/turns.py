"""Who is next: what of the queue of record is sent to the broker, fair across tenants.

The lanes share each window, in a lane the tenant with the smallest share of what is busy or was
served lately, of a tenant's work the earliest `turn_at`. That is when work came due; and a page's
is later by `work.GIVES_WAY_SECONDS` for each unread page of its own job before it, so that a long
job lets a short one of its tenant pass, yet not for ever. What was sent had its turn: where that came
to nothing, it goes before all that came since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Float, Uuid, bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session

from shared import prepared
from shared.served import Served
from shared.status import Lane
from shared.work import BELL

_PICK = prepared.statement(
    "pick",
    # A loose index scan finds the tenants that have due work without reading all of it; the one
    # with the smallest share, of what is busy or was served lately, is first, and each further row
    # raises its share. No more tenants are looked at than rows are wanted.
    # Of each tenant a few rows are read, twice its part of what is wanted. Where a tenant has more,
    # nothing behind the first row that was not read is picked: another round reads further.
    # What was locked is looked at once more, but as it came out of `picked`: a condition on `work`
    # would let a planner that knows no numbers yet read all that waits.
    """
    WITH RECURSIVE waiting(tenant) AS (
      (SELECT tenant FROM work WHERE queue = :queue AND priority = :lane
         AND status = 'queued' AND sent_at IS NULL ORDER BY tenant LIMIT 1)
      UNION ALL
      SELECT (SELECT w.tenant FROM work w WHERE w.queue = :queue AND w.priority = :lane
                AND w.status = 'queued' AND w.sent_at IS NULL AND w.tenant > waiting.tenant
              ORDER BY w.tenant LIMIT 1)
      FROM waiting WHERE waiting.tenant IS NOT NULL),
    busy AS (
      SELECT tenant, count(*) AS n FROM work WHERE queue = :queue
        AND (status = 'running' OR (status = 'queued' AND sent_at IS NOT NULL)) GROUP BY tenant),
    shares AS (
      SELECT waiting.tenant, tenants.weight,
        greatest(busy.n, served.units, 0) AS had,  -- what is busy was mostly served just now
        greatest(0, least(:n, tenants.max_busy - coalesce(busy.n, 0))) AS most,
        2 + 2 * :n / (count(*) OVER ())::int AS read
      FROM waiting JOIN tenants ON tenants.id = waiting.tenant
      LEFT JOIN busy ON busy.tenant = waiting.tenant
      LEFT JOIN unnest(:tenants, :units) AS served(tenant, units)
        ON served.tenant = waiting.tenant),
    firsts AS (
      SELECT had, weight, most, read, due.ids
      FROM (SELECT * FROM shares WHERE most > 0 ORDER BY (had + 1) / weight) AS ordered
      CROSS JOIN LATERAL (
        SELECT array_agg(id) AS ids FROM (
          SELECT id FROM work w WHERE w.queue = :queue AND w.priority = :lane
            AND w.tenant = ordered.tenant AND w.status = 'queued' AND w.sent_at IS NULL
            AND w.due_at <= now() ORDER BY w.turn_at, w.id
          LIMIT least(most, read)) AS first) AS due
      WHERE due.ids IS NOT NULL LIMIT :n),
    turns AS (
      SELECT due.id, (had + due.number) / weight AS turn,
        CASE WHEN due.number = read AND read < most THEN (had + read + 1) / weight END AS unread
      FROM firsts CROSS JOIN LATERAL unnest(ids) WITH ORDINALITY AS due(id, number)),
    chosen AS (
      SELECT id FROM turns WHERE turn <= coalesce((SELECT min(unread) FROM turns), 'infinity')
      ORDER BY turn, id LIMIT :n),
    picked AS (
      SELECT w.id, w.status, w.sent_at FROM work w JOIN chosen ON chosen.id = w.id
      ORDER BY w.id FOR NO KEY UPDATE OF w SKIP LOCKED)
    UPDATE work w SET sent_at = now(), sends = sends + 1 FROM picked
    WHERE w.id = picked.id AND picked.status = 'queued' AND picked.sent_at IS NULL
    RETURNING w.id, w.tenant, (SELECT count(unread) > 0 FROM turns) AS has_more
    """,
    queue="text",
    lane="text",
    n="integer",
    tenants="uuid[]",
    units="float[]",
).bindparams(bindparam("tenants", type_=ARRAY(Uuid)), bindparam("units", type_=ARRAY(Float)))


def pick(
    session: Session, queue: str, lane: Lane, most: int, served: Served | None = None
) -> list[int]:
    """Mark at most `most` due units as sent, fair across tenants; their ids.

    Where tenants were `served` more lately than is busy, that counts; what is picked is noted there.
    """
    picked: list[int] = []
    served = served or Served()
    while len(picked) < most:
        had = served.units()
        shares = {"tenants": list(had), "units": list(had.values())}
        values = {"queue": queue, "lane": lane, "n": most - len(picked)}
        rows = session.execute(_PICK, values | shares).all()
        for row in rows:
            picked.append(row.id)
            served.note(row.tenant)
        if not rows or not rows[0].has_more:
            break
    return picked


_UNSEND = text(
    f"""
    WITH unsent AS (
      SELECT id FROM work WHERE id = ANY(:ids) AND status = 'queued'
      ORDER BY id FOR NO KEY UPDATE)
    UPDATE work w SET sent_at = NULL FROM unsent WHERE w.id = unsent.id
    RETURNING pg_notify('{BELL}', w.queue)
    """  # noqa: S608 - of our own words
)


def unsend(session: Session, ids: Sequence[int]) -> None:
    """Undo `pick` for work that could not be published."""
    session.execute(_UNSEND, {"ids": list(ids)})


@dataclass(frozen=True)
class Demand:
    """What a lane of a queue asks for, and has."""

    is_due: bool  # some of its work waits to be sent
    busy: int  # units that are sent or running


_DEMAND = prepared.statement(
    "demand",
    # The order is the index's. Without it, or with EXISTS, the planner reads the whole table where
    # much is due: it expects to meet a fitting row soon, and looks for it once for each pair.
    """
    SELECT queue, lane, first.is_due IS NOT NULL AS is_due, busy.units
    FROM unnest(:queues) AS q(queue) CROSS JOIN unnest(:lanes) AS l(lane)
    LEFT JOIN LATERAL (
      SELECT true AS is_due FROM work WHERE work.queue = q.queue AND priority = lane
        AND status = 'queued' AND sent_at IS NULL AND due_at <= now()
      ORDER BY tenant, turn_at, id LIMIT 1) AS first ON true
    CROSS JOIN LATERAL (
      SELECT count(*) AS units FROM work WHERE work.queue = q.queue AND priority = lane
        AND (status = 'running' OR (status = 'queued' AND sent_at IS NOT NULL))) AS busy
    """,
    queues="text[]",
    lanes="text[]",
)


def demand(session: Session, queues: Sequence[str]) -> dict[str, dict[Lane, Demand]]:
    """What each lane of each queue asks for."""
    rows = session.execute(_DEMAND, {"queues": list(queues), "lanes": [*map(str, Lane)]})
    found: dict[str, dict[Lane, Demand]] = {queue: {} for queue in queues}
    for row in rows:
        found[row.queue][Lane(row.lane)] = Demand(row.is_due, row.units)
    return found
