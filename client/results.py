"""Results in files: which name each has, and that each is there whole or not at all."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from pathlib import Path

from client.models import ResultFormat

FORMATS: dict[str, ResultFormat] = {"md": "markdown", "txt": "text", "json": "json"}
"""The format that belongs to the ending of a file's name."""


def targets(documents: Sequence[Path], folder: Path, ending: str) -> list[Path]:
    """Where in `folder` the result of each document goes, named after the document.

    No two are the same, and none is one of the documents: a name that is taken gets a number.
    Names are compared as file systems do that do not tell case apart.
    """
    taken = {_key(document) for document in documents}
    chosen = []
    for document in documents:
        target = _free(folder / f"{document.stem}.{ending}", taken)
        taken.add(_key(target))
        chosen.append(target)
    return chosen


def write(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, in one step: a program that is ended leaves no half file."""
    if path.exists() and not path.is_file():  # a pipe or a device has nothing to be half of
        path.write_bytes(text.encode())
        return
    path = path.resolve()
    unfinished = path.with_name(f".{path.name}.part")
    try:
        unfinished.write_bytes(text.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _free(wanted: Path, taken: Container[str]) -> Path:
    numbered = (
        wanted.with_name(f"{wanted.stem}-{number}{wanted.suffix}") for number in itertools.count(2)
    )
    return next(path for path in itertools.chain([wanted], numbered) if _key(path) not in taken)


def _key(path: Path) -> str:
    return str(path.resolve()).casefold()
