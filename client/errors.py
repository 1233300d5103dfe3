"""Everything that the client raises.

    OctavoError
    ├── ApiError              the server refused, and says why
    │   ├── Unauthenticated
    │   ├── NotFound
    │   ├── NotFinished       what is asked for does not exist yet
    │   ├── JobFailed         there is no result, and will be none
    │   └── JobCancelled      the same
    ├── ConnectionFailed      no answer came
    └── WaitTimeout           the job did not end in time

A class of its own is for what a caller catches; everything else is told apart by `ApiError.code`,
which is stable. Arguments that cannot be right (an address without a scheme, an id that is none)
raise ValueError before anything is sent.
"""

from __future__ import annotations

from client.models import Job, Problem

UNEXPECTED_ANSWER = "unexpected_answer"
"""The code of an answer that no Octavo gives, such as the page of a proxy."""


class OctavoError(Exception):
    """Something went wrong that has a name."""


class ApiError(OctavoError):
    """The server refused. `str()` is its detail: what was wrong, and how to mend it.

    `status` is the HTTP status and `code` the stable name of the error; the rest is in `problem`.
    """

    def __init__(
        self, problem: Problem, *, status: int, retry_after_seconds: int | None = None
    ) -> None:
        """`retry_after_seconds` is what the server asked for; None where it did not."""
        super().__init__(problem.detail or problem.title)
        self.problem = problem
        self.status = status
        self.retry_after_seconds = retry_after_seconds

    @property
    def code(self) -> str:
        """The error's stable name, such as `not_found`; see the list of errors in the docs."""
        return self.problem.code

    @property
    def title(self) -> str:
        """What went wrong, in general."""
        return self.problem.title

    @property
    def detail(self) -> str:
        """What was wrong this time."""
        return self.problem.detail

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.problem.retryable

    @property
    def request_id(self) -> str | None:
        """What finds this request in the server's log; None where no Octavo answered."""
        return self.problem.request_id


class Unauthenticated(ApiError):
    """The API key is missing, wrong or revoked."""


class NotFound(ApiError):
    """There is no such thing, or it is another tenant's."""


class NotFinished(ApiError):
    """The job or the page has not been read yet; it may be there later."""


class JobFailed(ApiError):
    """The job failed, so it has no result; its finished pages stay readable."""


class JobCancelled(ApiError):
    """The job was cancelled, so it has no result; its finished pages stay readable."""


class ConnectionFailed(OctavoError):
    """No answer came. A submission may have arrived all the same: look before sending it again."""


class WaitTimeout(OctavoError):
    """The job did not end in the time given; it goes on."""

    def __init__(self, job: Job, *, timeout_seconds: float) -> None:
        """`job` is how it was last seen."""
        super().__init__(f"{job.id} did not end within {timeout_seconds:g} seconds")
        self.job = job
        self.timeout_seconds = timeout_seconds


_BY_CODE: dict[str, type[ApiError]] = {
    "unauthenticated": Unauthenticated,
    "not_found": NotFound,
    "job_not_finished": NotFinished,
    "page_not_finished": NotFinished,
    "job_failed": JobFailed,
    "job_cancelled": JobCancelled,
}


def error_of(problem: Problem, *, status: int, retry_after_seconds: int | None = None) -> ApiError:
    """The error that `problem` states, of the class that its code has."""
    kind = _BY_CODE.get(problem.code, ApiError)
    return kind(problem, status=status, retry_after_seconds=retry_after_seconds)
