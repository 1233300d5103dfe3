"""How far several documents are: a bar each on a terminal, plain lines elsewhere.

Both write to standard error. A row is used by one thread at a time, different rows by different
threads.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from client.lines import progress_of
from client.models import Job
from client.terminal import one_line, say

LINE_SECONDS = 5.0
"""A row of plain lines says no more often than that how many pages are done."""

LABEL_CHARACTERS = 40
"""Of a long path a bar shows the end, which tells it from others."""


class Row(Protocol):
    """What is shown of one document."""

    def sends(self, sent_bytes: int, total_bytes: int) -> None:
        """Show how much of the document was sent."""

    def shows(self, job: Job) -> None:
        """Show how far the job is."""

    def ends(self) -> None:
        """Take the row away."""


class Rows(Protocol):
    """Where rows are shown."""

    def add(self, label: str) -> Row:
        """A new row; it may stay unseen until there is something to show."""


@contextmanager
def shown() -> Iterator[Rows]:
    """A place for rows, as standard error is able to show them."""
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    if sys.stderr.isatty() and not console.is_dumb_terminal:
        with _progress(console) as progress:
            yield _Bars(progress)
    else:
        yield _Lines()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,  # it would go to standard error
    )


class _Bars:
    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def add(self, label: str) -> Row:
        return _Bar(self._progress, one_line(label)[-LABEL_CHARACTERS:])


class _Bar:
    """A bar that counts bytes, then pages."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._label = label
        self._task: TaskID | None = None

    def sends(self, sent_bytes: int, total_bytes: int) -> None:
        sent, total = f"{sent_bytes / 1e6:.1f}", f"{total_bytes / 1e6:.1f}"
        self._show(sent_bytes, total_bytes, f"sent {sent} of {total} MB")

    def shows(self, job: Job) -> None:
        self._show(job.pages.done, job.pages.total, progress_of(job))

    def ends(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._progress.refresh()  # else the next line that is said would show it once more

    def _show(self, completed: int, total: int | None, state: str) -> None:
        if self._task is None:
            self._task = self._progress.add_task(self._label, total=None, state="")
        self._progress.update(self._task, completed=completed, total=total, state=one_line(state))


class _Lines:
    def add(self, label: str) -> Row:
        return _LineRow(label)


class _LineRow:
    """A line at each change of the status, and now and then between."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._status = ""
        self._silent_until = 0.0

    def sends(self, sent_bytes: int, total_bytes: int) -> None:
        """Nothing: a line for each piece would be too many."""

    def shows(self, job: Job) -> None:
        now = time.monotonic()
        if job.is_final or (job.status == self._status and now < self._silent_until):
            return
        self._status, self._silent_until = job.status, now + LINE_SECONDS
        say(f"{self._label}: {job.id} {progress_of(job)}")

    def ends(self) -> None:
        """Nothing: what was said stands."""
