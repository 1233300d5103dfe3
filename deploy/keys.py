"""Tenants and their API keys, for the operator."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click
from sqlalchemy import select

from deploy.processes import Process
from shared import keys as api_keys
from shared.db import transaction
from shared.models import ApiKey, Tenant

FIRST_TENANT = "default"


def first_key() -> str | None:
    """A key of a first tenant, where there is no key yet; None where there is one."""
    with transaction() as session:
        if session.scalars(select(ApiKey.id).limit(1)).first() is not None:
            return None
        tenant = api_keys.find_tenant(session, FIRST_TENANT)
        tenant = tenant or api_keys.create_tenant(session, FIRST_TENANT)
        return api_keys.create(session, tenant, label="first key")


@click.group()
def keys() -> None:
    """Make, list and revoke API keys."""


@keys.command(cls=Process)
@click.argument("tenant")
@click.option("--label", default="", help="What the key is for.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(api_keys.SCOPES),
    multiple=True,
    default=api_keys.SCOPES,
    help="What it may do; everything where none is named.",
)
@click.option(
    "--days", type=click.IntRange(min=1), help="How long it is valid; for ever if not set."
)
def create(tenant: str, label: str, scopes: tuple[str, ...], days: int | None) -> None:
    """Make a key of TENANT, who is created if need be. It is shown this once."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    with transaction() as session:
        tenant_id = api_keys.find_tenant(session, tenant) or api_keys.create_tenant(session, tenant)
        key = api_keys.create(session, tenant_id, label=label, scopes=scopes, expires_at=expires_at)
    click.echo(key)


@keys.command("list", cls=Process)
def list_keys() -> None:
    """Show all keys, without their secrets."""
    with transaction() as session:
        query = select(ApiKey, Tenant.name).join(Tenant, Tenant.id == ApiKey.tenant)
        for key, tenant in session.execute(query.order_by(ApiKey.created_at)):
            state = "revoked" if key.revoked_at else "live"
            click.echo(f"{key.id}  {state:<7}  {tenant}  {','.join(key.scopes)}  {key.label}")


@keys.command(cls=Process)
@click.argument("key_id")
def revoke(key_id: str) -> None:
    """End the key with the id KEY_ID (the eight characters after octavo_live_)."""
    with transaction() as session:
        api_keys.revoke(session, key_id)
