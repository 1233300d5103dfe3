"""Tenants and their limits, for the operator."""

from __future__ import annotations

import click
from click.core import ParameterSource

from deploy.processes import Process
from shared import quotas
from shared.db import transaction

DEFAULT = "default"
COMMANDLINE = ParameterSource.COMMANDLINE


class _Limit(click.ParamType[float | None]):
    """A positive number, or `default`: back to what the settings say."""

    name = "number"

    def __init__(self, kind: type[int | float]) -> None:
        self._kind = kind

    def convert(
        self, value: str, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | None:
        """The number; None for `default`."""
        if value == DEFAULT:
            return None
        try:
            number = self._kind(value)
        except ValueError:
            number = 0
        if not 0 < number < float("inf"):
            self.fail(f"{value!r} is neither a number above 0 nor `{DEFAULT}`", param, ctx)
        return number


_COUNT, _RATE = _Limit(int), _Limit(float)


@click.group()
def tenants() -> None:
    """List tenants and set their limits."""


@tenants.command("list", cls=Process)
def list_tenants() -> None:
    """Show all tenants: what each has of what it may have."""
    with transaction() as session:
        for name, found in quotas.everybody(session):
            quota = found.quota
            click.echo(
                f"{name}  jobs {found.open_jobs}/{quota.open_jobs}  "
                f"pages {found.open_pages}/{quota.open_pages}  "
                f"bytes {found.stored_bytes}/{quota.stored_bytes}  "
                f"requests/s {quota.requests_per_second:g}  weight {found.weight:g}"
                f"{'  custom prompts' if found.custom_prompts else ''}"
            )


@tenants.command(cls=Process)
@click.argument("tenant")
@click.option("--open-jobs", "max_open_jobs", type=_COUNT, help="Jobs that have not ended.")
@click.option("--open-pages", "max_open_pages", type=_COUNT, help="Pages of these jobs.")
@click.option("--stored-bytes", "max_stored_bytes", type=_COUNT, help="Of documents in the store.")
@click.option("--requests", "max_requests_per_second", type=_RATE, help="A second, at a gateway.")
@click.option("--busy", "max_busy", type=click.IntRange(1), help="Work sent or running at once.")
@click.option(
    "--custom-prompts/--no-custom-prompts", help="Whether it may send prompts of its own."
)
@click.option("--weight", type=click.FloatRange(0, min_open=True), help="Of its share of workers.")
def limit(tenant: str, **given: float | None) -> None:
    """Set limits of TENANT. Gateways know within a second.

    `default`, for the first four, goes back to what the settings say.
    """
    source = click.get_current_context().get_parameter_source
    chosen = {name: value for name, value in given.items() if source(name) is COMMANDLINE}
    if not chosen:
        raise click.UsageError("which limit? See --help")
    with transaction() as session:
        quotas.limit(session, tenant, chosen)
