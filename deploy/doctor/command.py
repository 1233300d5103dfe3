"""`octavo doctor`: looks at every part, says what is wrong, and how to mend it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import click
import structlog

from deploy.doctor import broker, database, gateway, machine, platform, secrets, store
from deploy.doctor.finding import Finding, Level, failure, well
from deploy.embedded.services import Services
from deploy.local import CHOICES
from shared.config import InvalidSettings, Settings, settings

COLOURS = {Level.FAILURE: "red", Level.WARNING: "yellow", Level.UNKNOWN: "cyan"}


@click.command("doctor")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Of an `octavo up`; without it the settings of the environment are looked at.",
)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(directory: Path | None, *, as_json: bool) -> None:
    """Look at every part of the platform; ends with 1 where something does not work.

    Writes a few objects below `octavo-doctor/` in the store, and deletes them again.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    if directory is not None:
        os.environ.update(_environment(directory))
    found = list(_examine([directory] if directory else []))
    click.echo(json.dumps([asdict(one) for one in found], indent=2) if as_json else _table(found))
    raise SystemExit(any(one.level is Level.FAILURE for one in found))


def _examine(directories: Iterable[Path]) -> Iterator[Finding]:
    try:
        chosen = settings()
    except InvalidSettings as error:
        yield failure("settings", str(error), mend="docs/settings.md tells what each is")
        return
    yield well("settings", "complete")
    for check in _checks(chosen, directories):
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001 - the others are to be looked at all the same
            mend = "this is a fault of the doctor's: please report it"
            yield failure("doctor", f"{type(error).__name__}: {error}", mend=mend)


def _checks(chosen: Settings, directories: Iterable[Path]) -> list[Callable[[], Iterator[Finding]]]:
    return [
        lambda: secrets.check(chosen),
        lambda: database.check(chosen),
        lambda: broker.check(chosen),
        lambda: store.check(chosen),
        lambda: gateway.check(chosen),
        lambda: platform.check(chosen),
        lambda: machine.check_clock(chosen),
        lambda: machine.check_disk(directories),
        lambda: machine.check_engines(chosen),
        machine.check_sandbox,
    ]


def _environment(directory: Path) -> dict[str, str]:
    """The settings with which `octavo up` runs there."""
    if not (directory / "services.json").exists():
        raise click.BadParameter(f"nothing was ever started in {directory}", param_hint="--dir")
    choices = directory / CHOICES
    chosen = json.loads(choices.read_text()) if choices.exists() else {}
    return Services(directory).environment() | chosen


def _table(found: list[Finding]) -> str:
    width = max(len(one.part) for one in found)
    lines = []
    for one in found:
        level = click.style(f"{one.level:8}", fg=COLOURS.get(one.level))
        lines.append(f"{level} {one.part:{width}}  {one.said}")
        if one.mend:
            lines.append(f"{'':8} {'':{width}}  mend: {one.mend}")
    return "\n".join(lines)
