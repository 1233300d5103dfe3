"""The shapes of the gateway's answers, as OpenAPI shows them.

What is read comes from `shared.document`; here is what is said about jobs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from shared.document import DocumentPage, DocumentSource, ProblemFacts, Usage
from shared.page_range import PageRange
from shared.status import JobStatus, WorkStatus

JOB_ID = "job_0f8fad5bd9cb469fa16570867728950e"

_SOURCE = {
    "name": "contract.pdf",
    "media_type": "application/pdf",
    "bytes": 1843200,
    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
}
_JOB: dict[str, Any] = {
    "id": JOB_ID,
    "status": "running",
    "created_at": "2026-11-21T10:00:00Z",
    "started_at": "2026-11-21T10:00:01Z",
    "finished_at": None,
    "deadline_at": "2026-11-22T10:00:00Z",
    "expires_at": None,
    "source": _SOURCE,
    "options": {
        "task": "markdown",
        "phrase": None,
        "prompt": None,
        "mode": "auto",
        "engine": "auto",
        "pages": "1-12",
        "priority": "interactive",
    },
    "pages": {"total": 12, "succeeded": 4, "failed": 0, "running": 2},
    "queue": {"jobs_ahead": 0, "pages_ahead": 0},
    "eta_seconds": 6,
    "usage": {
        "vision_tokens": 1024,
        "output_tokens": 3120,
        "compression_ratio": 3.047,
        "engine_seconds": 3.9,
    },
    "error": None,
    "warnings": [],
    "metadata": {"case": "A-17"},
    "retry_of": None,
    "finished_as": None,
    "links": {
        "self": f"https://ocr.example/v1/jobs/{JOB_ID}",
        "pages": f"https://ocr.example/v1/jobs/{JOB_ID}/pages",
        "result": f"https://ocr.example/v1/jobs/{JOB_ID}/result",
        "cancel": f"https://ocr.example/v1/jobs/{JOB_ID}/cancel",
    },
}


class Problem(ProblemFacts):
    """An error, as RFC 9457 has it; `code` is stable, `detail` says how to mend it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "urn:octavo:error:not_found",
                    "title": "There is no such thing, or it is not yours.",
                    "status": 404,
                    "detail": "There is no such thing, or it is not yours.",
                    "instance": f"/v1/jobs/{JOB_ID}",
                    "code": "not_found",
                    "retryable": False,
                    "category": "policy",
                    "phase": "admission",
                    "request_id": "req_5f2b6f0e6f4c4be0a4c7c6a6d7b9a0f1",
                }
            ]
        }
    )

    type: str
    status: int
    instance: str
    request_id: str
    errors: list[dict[str, Any]] | None = None


class PageCounts(BaseModel):
    """How far a job is; `total` is null until the document was opened."""

    total: int | None
    succeeded: int
    failed: int
    running: int


class QueuePlace(BaseModel):
    """What stands before a job that waits; both stop counting at 1,000."""

    jobs_ahead: int
    pages_ahead: int


class Links(BaseModel):
    """Absolute addresses of what belongs to a job."""

    model_config = ConfigDict(populate_by_name=True)

    self_: str = Field(alias="self")
    pages: str
    result: str
    cancel: str


class Job(BaseModel):
    """A document that is to be read, and how far that is."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB]})

    id: str
    status: JobStatus
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime
    expires_at: datetime | None
    source: DocumentSource
    options: dict[str, Any]
    pages: PageCounts
    queue: QueuePlace | None = Field(description="Null once the job runs.")
    eta_seconds: int | None = Field(description="Null where it cannot be told yet.")
    usage: Usage
    error: ProblemFacts | None
    warnings: list[str]
    metadata: dict[str, str]
    retry_of: str | None
    finished_as: JobStatus | None = Field(description="How an expired job had ended.")
    links: Links


class JobList(BaseModel):
    """Some jobs, newest first. Give `next_cursor` back as `cursor` for more; null at the end."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"data": [_JOB], "next_cursor": None}]}
    )

    data: list[Job]
    next_cursor: str | None


class PageSummary(BaseModel):
    """How far one page is; its text is at `links.self` once it has succeeded."""

    page: int
    status: WorkStatus
    width: int | None
    height: int | None
    attempts: int
    confidence: float | None
    needs_review: bool
    error: ProblemFacts | None


class PageList(BaseModel):
    """The pages that are known so far, in order."""

    job_id: str
    status: JobStatus
    total: int | None
    data: list[PageSummary]
    next_cursor: str | None


class PageText(BaseModel):
    """More of what is read of a page, in the attempt of that number."""

    text: str
    attempt: int


class PageReset(BaseModel):
    """A page is read anew: its text so far is void."""

    attempt: int


class RetryRequest(BaseModel):
    """Which pages a new job is to read again."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"pages": "failed"}]})

    pages: str = Field(
        default="failed",
        description="`failed`, `all`, or a page range such as `3-5`. Pages that were not read well, "
        "all of them where the document was never opened, are read in any case.",
    )
    password: str | None = Field(default=None, max_length=256)

    @field_validator("pages")
    @classmethod
    def _is_choice(cls, value: str) -> str:
        if value not in ("failed", "all"):
            PageRange.parse(value)
        return value


class DeletionReceipt(BaseModel):
    """What became of a deleted job. 202 while its bytes go, 200 when they are gone."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": JOB_ID,
                    "deleted_at": "2026-11-21T10:05:00Z",
                    "purged_at": "2026-11-21T10:05:02Z",
                    "rows": 27,
                    "objects": 16,
                }
            ]
        }
    )

    id: str
    deleted_at: datetime
    purged_at: datetime | None
    rows: int
    objects: int


class Allowance(BaseModel):
    """How much of something a tenant may have, and has."""

    limit: int
    used: int


class Limits(BaseModel):
    """A tenant's limits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "open_jobs": {"limit": 10000, "used": 3},
                    "open_pages": {"limit": 200000, "used": 212},
                    "stored_bytes": {"limit": 107374182400, "used": 1843200},
                    "requests_per_second": 500,
                    "custom_prompts": False,
                }
            ]
        }
    )

    open_jobs: Allowance
    open_pages: Allowance
    stored_bytes: Allowance
    requests_per_second: float = Field(description="At each gateway.")
    custom_prompts: bool = Field(description="Whether you may ask by `task: custom`.")


class Health(BaseModel):
    """Whether a process can do its work."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str


__all__ = [
    "DeletionReceipt",
    "DocumentPage",
    "Health",
    "Job",
    "JobList",
    "Links",
    "PageCounts",
    "PageList",
    "PageReset",
    "PageSummary",
    "PageText",
    "Problem",
    "QueuePlace",
    "RetryRequest",
]
