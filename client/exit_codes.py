"""What the command line ends with, for scripts."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum

from client.errors import ApiError, ConnectionFailed, JobCancelled, JobFailed
from client.models import DocumentPage, Job


class ExitCode(IntEnum):
    """How a command ended; where several things happened, the one that stands lowest here."""

    GOOD = 0
    PARTIAL = 3  # some pages of a document could not be read
    FAILED = 1  # a job failed or was cancelled, or a file could not be read or written
    REFUSED = 4  # the server said no
    UNREACHABLE = 5  # the server said nothing
    INTERRUPTED = 130  # Ctrl-C


_GRAVITY = tuple(ExitCode)  # an enum keeps the order in which it was written

_OF_STATUS = {
    "partially_succeeded": ExitCode.PARTIAL,
    "failed": ExitCode.FAILED,
    "cancelled": ExitCode.FAILED,
}


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """The gravest of `codes`; GOOD where there are none."""
    return max(codes, key=_GRAVITY.index, default=ExitCode.GOOD)


def of_job(job: Job) -> ExitCode:
    """What a job's state amounts to; of an expired one, the state in which it had ended."""
    return _OF_STATUS.get(job.finished_as or job.status, ExitCode.GOOD)


def of_page(page: DocumentPage) -> ExitCode:
    """What a page's state amounts to."""
    return _OF_STATUS.get(page.status, ExitCode.GOOD)


def of_error(error: Exception) -> ExitCode:
    """What an error of the client, or of the file system, amounts to."""
    if isinstance(error, ConnectionFailed):
        return ExitCode.UNREACHABLE
    if isinstance(error, ApiError) and not isinstance(error, JobFailed | JobCancelled):
        return ExitCode.REFUSED
    return ExitCode.FAILED
