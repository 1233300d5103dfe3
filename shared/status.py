"""The states of jobs and of work, and which of them are final.

Beside each name stands how it is entered and what may follow. The database refuses any change to
a final row (migrations/versions), so a state machine that is wrong fails loudly.
"""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # submitted -> running, cancelled, failed
    RUNNING = "running"  # prepare was claimed -> every final state
    SUCCEEDED = "succeeded"  # assembled, every page good -> expired
    PARTIALLY_SUCCEEDED = "partially_succeeded"  # assembled, some pages good, some not -> expired
    FAILED = "failed"  # no page is good, or the document cannot be opened -> expired
    CANCELLED = "cancelled"  # by its tenant -> expired
    EXPIRED = "expired"  # retention removed its bytes; `finished_as` keeps how it had ended

    @property
    def is_final(self) -> bool:
        """Whether nothing but expiry can follow."""
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)

    @property
    def has_result(self) -> bool:
        """Whether there is a document to fetch."""
        return self in (JobStatus.SUCCEEDED, JobStatus.PARTIALLY_SUCCEEDED)


class WorkStatus(StrEnum):
    """Where a unit of work stands, and so a page, whose work is to be recognised."""

    QUEUED = "queued"  # made, released, retried or rescued -> running, cancelled
    RUNNING = "running"  # claimed, under a lease -> queued, succeeded, failed, cancelled
    SUCCEEDED = "succeeded"  # its result is stored
    FAILED = "failed"  # its error is stored
    CANCELLED = "cancelled"  # its job was cancelled

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self not in (WorkStatus.QUEUED, WorkStatus.RUNNING)


class WorkKind(StrEnum):
    """What is to be done."""

    PREPARE = "prepare"  # a job: open the document, render its pages
    RECOGNISE = "recognise"  # a page: read it
    ASSEMBLE = "assemble"  # a job: make one document of its pages


class Lane(StrEnum):
    """How urgent a job is; the dispatcher serves each lane, none starves."""

    INTERACTIVE = "interactive"  # somebody waits
    BATCH = "batch"  # nobody waits; keeps a reserved share of each window
