"""What a tenant may have the platform hold, and what it does.

Jobs count until they end, pages until their job does, bytes of documents until these are deleted
or expire. The counting is a trigger's (migrations/versions/0002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text, update
from sqlalchemy.orm import Session

from shared.config import settings
from shared.errors import NotFound, OctavoError, QuotaExceeded, TooManyInFlight
from shared.models import Tenant

FAR_JOBS = 1_000
"""More than all gateways take of one tenant in a second or two."""

FAR_UPLOADS = 64
"""Of the largest size; more than all gateways take of one tenant in a second or two."""


@dataclass(frozen=True)
class Quota:
    """What a tenant may have at once."""

    open_jobs: int
    open_pages: int
    stored_bytes: int
    requests_per_second: float


@dataclass(frozen=True)
class Standing:
    """What a tenant may have, and what it has."""

    quota: Quota
    weight: float
    custom_prompts: bool = False
    open_jobs: int = 0
    open_pages: int = 0
    stored_bytes: int = 0

    def is_far_from_full(self) -> bool:
        """Whether the jobs of the next seconds cannot make it too much, whatever they are."""
        return (
            self.open_jobs + FAR_JOBS <= self.quota.open_jobs
            and self.open_pages + FAR_JOBS <= self.quota.open_pages
            and self.stored_bytes + FAR_UPLOADS * settings().max_upload_bytes
            <= self.quota.stored_bytes
        )

    def excess(self, *, more_jobs: int = 0, more_bytes: int = 0) -> OctavoError | None:
        """What is too much: TooManyInFlight, QuotaExceeded, or None. A new job has one page."""
        for what, count, most in (
            ("jobs", self.open_jobs + more_jobs, self.quota.open_jobs),
            ("pages", self.open_pages + more_jobs, self.quota.open_pages),
        ):
            if count > most:
                return TooManyInFlight(f"At most {most} {what} that are not finished.")
        if self.stored_bytes + more_bytes > self.quota.stored_bytes:
            return QuotaExceeded(f"At most {self.quota.stored_bytes} bytes of documents.")
        return None


_STANDING = """
    SELECT tenants.*, footprints.jobs, footprints.pages, footprints.bytes
    FROM tenants LEFT JOIN footprints ON footprints.tenant = tenants.id
"""

_ONE = text(f"{_STANDING} WHERE tenants.id = :tenant")

# Count now what this transaction has done, and not at its commit.
_SETTLED = text(f"SET CONSTRAINTS ALL IMMEDIATE; {_STANDING} WHERE tenants.id = :tenant")


def standing(session: Session, tenant: UUID) -> Standing:
    """How a tenant stands."""
    return _standing(session.execute(_ONE, {"tenant": tenant}).one())


def settled(session: Session, tenant: UUID) -> Standing:
    """How a tenant stands with all that this transaction has done, until it ends.

    It locks what all of the tenant's jobs share, so nothing but the commit should follow.
    """
    session.flush()
    return _standing(session.execute(_SETTLED, {"tenant": tenant}).one())


def everybody(session: Session) -> list[tuple[str, Standing]]:
    """All tenants by name, and how they stand."""
    rows = session.execute(text(f"{_STANDING} ORDER BY tenants.name"))
    return [(row.name, _standing(row)) for row in rows]


def limit(session: Session, tenant: str, values: Mapping[str, float | None]) -> None:
    """Set columns of a tenant's row; None goes back to the setting. Raises NotFound."""
    statement = update(Tenant).where(Tenant.name == tenant).values(dict(values))
    if session.execute(statement.returning(Tenant.id)).first() is None:
        raise NotFound(f"There is no tenant {tenant}.")


def _standing(row: Row[Any]) -> Standing:
    default = settings()
    quota = Quota(
        open_jobs=row.max_open_jobs or default.max_open_jobs,
        open_pages=row.max_open_pages or default.max_open_pages,
        stored_bytes=row.max_stored_bytes or default.max_stored_bytes,
        requests_per_second=row.max_requests_per_second or default.max_requests_per_second,
    )
    had = (row.jobs or 0, row.pages or 0, row.bytes or 0)
    return Standing(quota, row.weight, row.custom_prompts, *had)
