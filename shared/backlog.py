"""How much all tenants have waiting, how fast it is read, and so how long a tenant would wait.

Workers serve tenants side by side, each by its weight. So until a tenant's own pages are read, any
other gets at most as many for each unit of its weight: a loud tenant's pages lengthen its own wait,
not that of a quiet one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import workers
from shared.status import WorkKind

RECENT_JOBS = 50
"""Ended jobs by which it is told how long a page takes."""


@dataclass(frozen=True)
class Backlog:
    """The pages of each tenant's open jobs, with its weight; and the pace of the live workers."""

    tenants: Sequence[tuple[float, float]]  # pages, weight
    pages_per_second: float | None  # None where no worker lives, or none has read anything yet

    def wait_seconds(self, *, pages: int, weight: float) -> float | None:
        """Until one more page of a tenant that has so many is begun; None: cannot be told.

        An estimate: pages that are read already count until their job has ended, and engines that
        hold more pages than they read at once look faster than they are.
        """
        if not self.pages_per_second:
            return None
        share = (pages + 1) / weight
        before = sum(min(theirs, share * their_weight) for theirs, their_weight in self.tenants)
        return before / self.pages_per_second


# Doors through row-level security: numbers of all tenants, and no name.
_TENANTS = text("SELECT pages, weight FROM octavo_backlog()")
_PAGE_SECONDS = text("SELECT octavo_page_seconds(:recent)")


def read(session: Session) -> Backlog:
    """The backlog as it is now."""
    tenants = [(float(row.pages), row.weight) for row in session.execute(_TENANTS)]
    return Backlog(tenants, _pages_per_second(session))


def _pages_per_second(session: Session) -> float | None:
    reading = f"{WorkKind.RECOGNISE}."
    live = workers.live_slots(session)
    slots = sum(count for queue, count in live.items() if queue.startswith(reading))
    page_seconds = session.execute(_PAGE_SECONDS, {"recent": RECENT_JOBS}).scalar()
    return slots / page_seconds if slots and page_seconds else None
