"""Points at which a test lets a process die, to see that nothing is lost there.

`reach` stands between two effects that do not happen together, such as a stored object and its
row. It does nothing unless OCTAVO_CRASH_POINTS names a folder, and only tests name one. A file in
there with the name of a point kills the first process that reaches it, as `kill -9` would; the
file goes with the process, so that one that is started again goes on.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

POINTS = (
    # The gateway
    "upload-part",  # one part of a large document is stored
    "upload-stored",  # the document is stored, no row knows of it
    "submit-uncommitted",
    "submit-committed",  # nobody was told
    "request-committed",  # any other request that writes, a deletion among them; nobody was told
    # The dispatcher
    "dispatch-marked",  # as sent; no message is
    "dispatch-sent",  # one message, perhaps not the last of its batch
    # Workers
    "prepare-claimed",
    "prepare-stored",  # the images of a window of pages are; their rows are not there
    "prepare-committed",  # its message is not acknowledged, nor is any below
    "recognise-claimed",
    "recognise-read",  # the engine has answered
    "recognise-stored",  # the figures of what will stand are, where it has some; its row is not there
    "recognise-committed",
    "assemble-claimed",
    "assemble-stored",  # the result, in all formats
    "assemble-committed",
    # The sweeper
    "purge-emptied",  # the objects of a deleted job are gone, its rows are there
    "expire-emptied",  # the same of an outlived job
)

_FOLDER = os.environ.get("OCTAVO_CRASH_POINTS")


def reach(*words: str) -> None:
    """Die here, where a test wants it; `words` are those of the point's name."""
    if _FOLDER is not None:
        _die_if_told(Path(_FOLDER), "-".join(words))


def _die_if_told(folder: Path, point: str) -> None:
    assert point in POINTS
    try:
        (folder / point).unlink()  # by one process only, whoever else is here
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
