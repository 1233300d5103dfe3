"""What a tenant may have the platform hold, and what it does.

Jobs count until they end, pages until their job does, bytes of documents until these are deleted
or expire. The counting is a trigger's (migrations/versions/0002).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from shared.config import settings
from shared.errors import NotFound, OctavoError, QuotaExceeded, TooManyInFlight
from shared.models import Footprint, Tenant


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
    open_jobs: int = 0
    open_pages: int = 0
    stored_bytes: int = 0

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


def standing(session: Session, tenant: UUID) -> Standing:
    """How a tenant stands."""
    query = (
        select(Tenant, Footprint)
        .outerjoin(Footprint, Footprint.tenant == Tenant.id)
        .where(Tenant.id == tenant)
        .execution_options(populate_existing=True)
    )
    return _standing(*session.execute(query).one())


def settled(session: Session, tenant: UUID) -> Standing:
    """How a tenant stands with all that this transaction has done, until it ends.

    It locks what all of the tenant's jobs share, so nothing but the commit should follow.
    """
    session.flush()
    session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))  # count now, not at the commit
    return standing(session, tenant)


def everybody(session: Session) -> list[tuple[str, Standing]]:
    """All tenants by name, and how they stand."""
    query = select(Tenant, Footprint).outerjoin(Footprint, Footprint.tenant == Tenant.id)
    rows = session.execute(query.order_by(Tenant.name))
    return [(tenant.name, _standing(tenant, footprint)) for tenant, footprint in rows]


def limit(session: Session, tenant: str, values: Mapping[str, float | None]) -> None:
    """Set columns of a tenant's row; None goes back to the setting. Raises NotFound."""
    statement = update(Tenant).where(Tenant.name == tenant).values(dict(values))
    if session.execute(statement.returning(Tenant.id)).first() is None:
        raise NotFound(f"There is no tenant {tenant}.")


def _standing(tenant: Tenant, footprint: Footprint | None) -> Standing:
    chosen = settings()
    quota = Quota(
        open_jobs=_or(tenant.max_open_jobs, chosen.max_open_jobs),
        open_pages=_or(tenant.max_open_pages, chosen.max_open_pages),
        stored_bytes=_or(tenant.max_stored_bytes, chosen.max_stored_bytes),
        requests_per_second=(
            chosen.max_requests_per_second
            if tenant.max_requests_per_second is None
            else tenant.max_requests_per_second
        ),
    )
    if footprint is None:
        return Standing(quota, tenant.weight)
    return Standing(quota, tenant.weight, footprint.jobs, footprint.pages, footprint.bytes)


def _or(own: int | None, default: int) -> int:
    return default if own is None else own
