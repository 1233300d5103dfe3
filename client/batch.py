"""The documents that one command sends, and where the result of each goes."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal

import click

from client import results
from client.errands import Errand
from client.terminal import say

Existing = Literal["replace", "skip"]
"""What to do where a result's file is there already: write it anew, or leave its document out."""


def errands_of(
    documents: Sequence[Path], folder: Path | None, ending: str, existing: Existing | None
) -> list[Errand]:
    """An errand for each document, with a target where there is a `folder`, which is made.

    A usage error where the folder cannot be had, or holds a target and `existing` is None.
    """
    if folder is None:
        return [Errand(str(path), path=path) for path in documents]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        targets = results.targets(documents, folder, ending)
        there = [target for target in targets if target.exists()]
    except OSError as error:
        raise click.BadParameter(str(error), param_hint="-o") from error
    if there and existing is None:
        raise click.BadParameter(_how_to_go_on(there), param_hint="-o")
    errands = [
        Errand(str(path), path=path, target=target)
        for path, target in zip(documents, targets, strict=True)
    ]
    return _missing(errands, set(there)) if existing == "skip" else errands


def _how_to_go_on(there: Sequence[Path]) -> str:
    more = f", and {len(there) - 1} more" if len(there) > 1 else ""
    return (
        f"{there[0]} exists{more}. Nothing was sent; --force replaces what exists, "
        "--skip-existing sends only what is missing"
    )


def _missing(errands: Sequence[Errand], there: Container[Path | None]) -> list[Errand]:
    """The errands whose targets are not `there`; of each of the others that is said."""
    for errand in errands:
        if errand.target in there:
            say(f"{errand.label}: not sent, {errand.target} exists")
    return [errand for errand in errands if errand.target not in there]
