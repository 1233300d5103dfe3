"""The audit log, for the operator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import click
from sqlalchemy import Row, select

from deploy.processes import Process
from shared import keys
from shared.db import transaction
from shared.errors import NotFound
from shared.models import Audit, Tenant

ROWS_AT_ONCE = 1_000


@click.command(cls=Process)
@click.option("--tenant", help="Only what is about the tenant of this name.")
@click.option("--since", type=click.DateTime(), help="Only from then on, in UTC.")
def audit(tenant: str | None, since: datetime | None) -> None:
    """Show who did what, oldest first: time, tenant, actor, action, object, request, address."""
    for row, name in _rows(tenant, since.replace(tzinfo=UTC) if since else None):
        at = row.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        where = f"{row.request_id or '-'}  {row.address or '-'}"
        facts = json.dumps(row.facts, sort_keys=True)
        who = name or str(row.tenant)
        click.echo(f"{at}  {who}  {row.actor}  {row.action}  {row.object}  {where}  {facts}")


def _rows(tenant: str | None, since: datetime | None) -> Iterator[Row[Audit, str | None]]:
    query = select(Audit, Tenant.name).outerjoin(Tenant, Tenant.id == Audit.tenant)
    if since is not None:
        query = query.where(Audit.at >= since)
    if tenant is not None:
        query = query.where(Audit.tenant == _id_of(tenant))
    last = 0
    while True:
        after = query.where(Audit.id > last).order_by(Audit.id).limit(ROWS_AT_ONCE)
        with transaction() as session:
            rows = session.execute(after).all()
        yield from rows
        if len(rows) < ROWS_AT_ONCE:
            return
        last = rows[-1][0].id


def _id_of(tenant: str) -> UUID:
    with transaction() as session:
        found = keys.find_tenant(session, tenant)
    if found is None:
        raise NotFound(f"There is no tenant {tenant}.")
    return found
