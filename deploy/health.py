"""`octavo health`: how one process is, for what starts it again. Asks no other part."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

import click

from shared import health

PATIENCE_SECONDS = 3


@click.command("health")
@click.option("--url", help="A gateway's address; it is asked over HTTP.")
@click.option(
    "--file",
    default=lambda: os.environ.get("OCTAVO_HEALTH_FILE"),
    show_default="OCTAVO_HEALTH_FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where any other process writes how it is.",
)
@click.option("--ready", is_flag=True, help="Ask whether it can work, not whether it lives.")
def command(url: str | None, file: Path | None, *, ready: bool) -> None:
    """Say how a process is; ends with 1 where it is not well."""
    if url is not None:
        found = _asked(f"{url.rstrip('/')}/{'readyz' if ready else 'livez'}")
    elif file is not None:
        found = health.read(file)
    else:
        raise click.UsageError("which process? Give --url, or --file")
    wrong = [*found.dead, *(found.unready if ready else [])]
    for line in wrong or ["well"]:
        click.echo(line)
    raise SystemExit(bool(wrong))


def _asked(url: str) -> health.Health:
    if not url.startswith(("http://", "https://")):
        raise click.UsageError("--url must begin with http:// or https://")
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS):  # noqa: S310 - looked at above
            return health.Health()
    except urllib.error.HTTPError as error:
        return health.Health(dead=[f"{url} answers {error.code}"])
    except OSError as error:
        return health.Health(dead=[f"{url} does not answer: {error}"])
