"""Folders of weights, for the operator of a DeepSeek engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from worker.engine.deepseek import checkpoint, tokenizer_file
from worker.engine.deepseek.config import NAMES, Version
from worker.engine.deepseek.errors import CheckpointError

_folder = click.argument("folder", type=click.Path(file_okay=False, path_type=Path))


class _Command(click.Command):
    """Says in a line what is wrong with a folder."""

    def invoke(self, context: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(context)
        except (CheckpointError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group()
def models() -> None:
    """Check folders of weights, or make a tiny one for trying out."""


@models.command(cls=_Command)
@_folder
@click.option(
    "--manifest",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Checksums as sha256sum writes them; SHA256SUMS in FOLDER where none is given.",
)
def check(folder: Path, manifest: Path | None) -> None:
    """Say which model lies in FOLDER, and whether all of it is there.

    Reads headers and lengths, and all bytes where there are checksums. Runs nothing in FOLDER.
    """
    found = checkpoint.inspect(folder)
    click.echo(f"{NAMES[found.config.version]}, {len(found.files)} tensors, all of their shapes")
    official = tokenizer_file.is_official((folder / checkpoint.TOKENIZER_FILE).read_bytes())
    click.echo(f"tokenizer.json: {'the official one' if official else 'NOT the official one'}")
    if manifest is None and not (folder / checkpoint.MANIFEST_FILE).is_file():
        click.echo(f"no checksums: {checkpoint.MANIFEST_FILE} is not there, so bytes were not read")
        return
    names = checkpoint.verify(folder, manifest)
    click.echo(f"{len(names)} files are as {(manifest or checkpoint.MANIFEST_FILE)} says")


@models.command(cls=_Command)
@_folder
@click.option("--version", type=click.Choice(["1", "2"]), default="1", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the random weights.")
def tiny(folder: Path, version: str, seed: int) -> None:
    """Make a tiny checkpoint with random weights in FOLDER; it reads nonsense, quickly."""
    from worker.engine.deepseek import tiny as tiny_checkpoint  # noqa: PLC0415 - needs torch

    chosen: Version = 1 if version == "1" else 2
    tiny_checkpoint.write(folder, chosen, seed)
    click.echo(f"{NAMES[chosen]}, tiny and random: OCTAVO_MODEL_DIR={folder}")
