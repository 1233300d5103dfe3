"""What the API answers, as the client sees it.

Fields that a newer server adds are ignored, and words that it adds (a status, a kind of block) are
kept as they are: an old client goes on working. All text that was read, and every file name, was
written by somebody else: data, never markup, instructions or paths to be trusted.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field

Task = Literal["markdown", "text", "figure", "describe", "locate", "custom"]
Mode = Literal["auto", "tiny", "small", "base", "large", "gundam"]
Priority = Literal["interactive", "batch"]
ResultFormat = Literal["markdown", "text", "json"]

JOB_ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
"""What an id of a job may be: it becomes a part of a path."""

_FINAL = frozenset({"succeeded", "partially_succeeded", "failed", "cancelled", "expired"})
_WITH_RESULT = frozenset({"succeeded", "partially_succeeded"})


class Options(TypedDict, total=False):
    """What may be asked of a job; what is left out, or None, the server chooses."""

    task: Task | None
    phrase: str | None  # with `locate`: the words to look for
    prompt: str | None  # with `custom`, where the tenant may
    mode: Mode | None  # how closely pages are looked at, by engines that have modes
    engine: str | None
    pages: str | None  # from 1: `1-3,5,8-`
    priority: Priority | None
    metadata: dict[str, str] | None  # given back with the job
    password: str | None  # opens an encrypted PDF


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Problem(_Answer):
    """Why a request, a job or a page failed, in the words of RFC 9457.

    The last four are there when a request failed. `errors` says which parts of it are wrong, each
    with a `pointer` and a `message`.
    """

    code: str
    title: str = ""
    detail: str = ""
    retryable: bool = False
    category: str = "unknown"
    phase: str = "unknown"
    status: int | None = None
    instance: str | None = None
    request_id: str | None = None
    errors: list[dict[str, Any]] | None = None


class Source(_Answer):
    """The document that was sent. `name` is what its sender called it: data, never a path."""

    name: str
    media_type: str
    bytes: int
    sha256: str


class PageCounts(_Answer):
    """How far a job is; `total` is None until the document was opened."""

    total: int | None
    succeeded: int
    failed: int
    running: int

    @property
    def done(self) -> int:
        """Pages of which nothing more is to be expected."""
        return self.succeeded + self.failed


class QueuePlace(_Answer):
    """What stands before a job that waits."""

    jobs_ahead: int
    pages_ahead: int


class Usage(_Answer):
    """What reading cost. Token counts are None where the engine has no tokens."""

    vision_tokens: int | None = None
    output_tokens: int | None = None
    compression_ratio: float | None = None  # output tokens for each vision token
    engine_seconds: float = 0.0


class Job(_Answer):
    """A document that is to be read, and how far that is.

    `status` is one of queued, running, succeeded, partially_succeeded, failed, cancelled, expired,
    or a word of a newer server.
    """

    id: str = Field(pattern=JOB_ID_PATTERN)
    status: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    expires_at: datetime | None
    source: Source
    options: dict[str, Any]
    pages: PageCounts
    queue: QueuePlace | None
    eta_seconds: int | None
    usage: Usage
    error: Problem | None
    warnings: list[str]
    metadata: dict[str, str]
    retry_of: str | None
    finished_as: str | None = None  # how an expired job had ended

    @property
    def is_final(self) -> bool:
        """Whether nothing but expiry can follow; a status not known here has ended if it says when."""
        return self.status in _FINAL or self.finished_at is not None

    @property
    def has_result(self) -> bool:
        """Whether there is a document to fetch."""
        return self.status in _WITH_RESULT


class JobList(_Answer):
    """Some jobs, newest first; `next_cursor` is None at the end."""

    data: list[Job]
    next_cursor: str | None


class PageSummary(_Answer):
    """How far one page is. `width` and `height` are pixels of its image."""

    page: int
    status: str
    width: int | None
    height: int | None
    attempts: int
    confidence: float | None
    needs_review: bool
    error: Problem | None


class PageList(_Answer):
    """Some pages in order; `next_cursor` is None at the end."""

    data: list[PageSummary]
    next_cursor: str | None


class Box(_Answer):
    """A rectangle in pixels of the page image; `x1` and `y1` are exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int


class Block(_Answer):
    """One piece of a page, in reading order from 0."""

    order: int
    kind: str
    text: str
    box: Box | None = None
    box_fraction: tuple[float, float, float, float] | None = None  # x0, y0, x1, y1 in 0..1
    confidence: float | None = None
    figure: int | None = None  # of the page: `pages/{page}/figures/{figure}` of the job has it


class Try(_Answer):
    """One reading of a page whose first had a flaw; `flaw` is None where this one was sound."""

    engine: str
    mode: str | None = None
    flaw: str | None = None
    usage: Usage = Usage()


class DocumentPage(_Answer):
    """One page of a document: what was read, or why it could not be.

    `page` is its number in the source, from 1. `finish_reason` is stop, length (the text is cut
    off) or repetition.
    """

    page: int
    status: str
    width: int | None = None
    height: int | None = None
    markdown: str = ""
    text: str = ""
    blocks: list[Block] = []
    confidence: float | None = None
    confidence_min: float | None = None
    finish_reason: str | None = None
    rotation: int = 0
    needs_review: bool = False
    engine: str | None = None
    model: str | None = None
    mode: str | None = None  # how closely it was looked at
    tries: list[Try] = []
    usage: Usage = Usage()
    error: Problem | None = None


class PageText(_Answer):
    """More of the text of a page that is being read, in the attempt of that number."""

    text: str
    attempt: int


class PageReset(_Answer):
    """A page is read anew, in the attempt of that number: its text so far is void."""

    attempt: int


PageEvent = PageText | PageReset | DocumentPage
"""What comes of a page that is watched; the page itself is the last."""


class Document(_Answer):
    """A whole document, its chosen pages in order."""

    schema_: str = Field(alias="schema")
    job_id: str
    status: str
    source: Source
    content_is_untrusted: bool = True
    pages: list[DocumentPage]
    usage: Usage


class DeletionReceipt(_Answer):
    """What became of a deleted job; `purged_at` is None while its bytes go."""

    id: str
    deleted_at: datetime
    purged_at: datetime | None
    rows: int
    objects: int
