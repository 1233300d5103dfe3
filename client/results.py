"""Results in files: which name each has, and that each is there whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from client.models import ResultFormat

FORMATS: dict[str, ResultFormat] = {"md": "markdown", "txt": "text", "json": "json"}
"""The format that belongs to the ending of a file's name."""

NAME_BYTES = 255
"""The longest name of a file that the usual file systems take."""


def targets(documents: Sequence[Path], folder: Path, ending: str) -> list[Path]:
    """Where in `folder` the result of each document goes, named after the document.

    No two are the same, and none is one of the documents: a name that is taken gets a number, so
    the same documents in the same order have the same targets. Names are compared as file systems
    do that do not tell case apart; one that is too long for them is cut before its number and its
    ending. Whether something stands there already is not looked at.
    """
    taken = {_key(document) for document in documents}
    chosen = []
    for document in documents:
        target = _free(folder, document.stem, ending, taken)
        taken.add(_key(target))
        chosen.append(target)
    return chosen


def write(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, in one step: a program that is ended leaves no half file.

    What stood there is replaced.
    """
    if path.exists() and not path.is_file():  # a pipe or a device has nothing to be half of
        path.write_bytes(text.encode())
        return
    path = path.resolve()
    with _unnamed(path.parent, text) as file:
        file.replace(path)


def write_new(path: Path, text: str) -> None:
    """Write as `write` does, but raise FileExistsError where something stands at `path`."""
    if path.exists():
        raise _exists(path)
    path = path.resolve()
    with _unnamed(path.parent, text) as file:
        try:
            path.hardlink_to(file)
        except FileExistsError:
            raise _exists(path) from None
        except OSError:  # a file system without hard links
            file.replace(path)


@contextmanager
def _unnamed(folder: Path, text: str) -> Iterator[Path]:
    """A file in `folder` that holds `text`, until the caller has given it its name.

    Its own name is short, whatever the name to come, and no other program has the same.
    """
    file = folder / f".octavo-{secrets.token_hex(8)}"
    try:
        file.write_bytes(text.encode())
        yield file
    finally:
        file.unlink(missing_ok=True)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _free(folder: Path, stem: str, ending: str, taken: Container[str]) -> Path:
    endings = itertools.chain([f".{ending}"], (f"-{n}.{ending}" for n in itertools.count(2)))
    paths = (folder / _name(stem, its_ending) for its_ending in endings)
    return next(path for path in paths if _key(path) not in taken)


def _name(stem: str, ending: str) -> str:
    """`stem`, as much of it as a file system takes, with `ending`."""
    while len(os.fsencode(stem + ending)) > NAME_BYTES:
        stem = stem[:-1]
    return stem + ending


def _key(path: Path) -> str:
    return str(path.resolve()).casefold()
