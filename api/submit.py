"""The one use case that makes a job: a document in the store becomes a row with work to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

from sqlalchemy.orm import Session

from api.uploads import Upload
from shared import abilities, audit, jobs, new_pages, pages, sealing, storage
from shared.audit import Action, Actor
from shared.config import settings
from shared.errors import (
    DatabaseUnavailable,
    DependencyUnavailable,
    InvalidOptions,
    JobDeleted,
    JobNotFinished,
    NothingToRetry,
    OctavoError,
    PromptNotAllowed,
    ResultExpired,
)
from shared.keys import Caller
from shared.models import Job
from shared.options import JobOptions, Mode, SubmitOptions, Task
from shared.page_range import PageRange
from shared.schema import NEWER
from shared.status import JobStatus, WorkStatus

NAME_CHARACTERS = 255

GONE = "The document is gone; submit it again."
"""What is said where a document was not kept long enough to be read again."""


def check(options: JobOptions, *, may_prompt: bool) -> None:
    """Refuse, before a byte is taken, what is not offered here, or not to this tenant.

    Raises InvalidOptions and PromptNotAllowed.
    """
    _engine(options)
    if options.task is Task.CUSTOM and not may_prompt:
        raise PromptNotAllowed


@contextmanager
def or_nothing(tenant: UUID, job_id: UUID) -> Iterator[None]:
    """Take the document of a new job out of the store where the block, its transaction, fails.

    Where nobody can say whether that was committed, the document stays: the row may be there.
    """
    try:
        yield
    except DatabaseUnavailable:
        raise
    except OctavoError:
        with suppress(DependencyUnavailable):
            storage.delete_prefix(storage.job_prefix(tenant, job_id))
        raise


def submit(
    session: Session,
    caller: Caller,
    *,
    job_id: UUID,
    name: str,
    upload: Upload,
    options: SubmitOptions,
    actor: Actor,
) -> Job:
    """A new job that reads a document which is in the store already."""
    kept = options.model_dump(mode="json", exclude={"password", "metadata"})
    draft = Job(
        id=job_id,
        tenant=caller.tenant,
        options=JobOptions.model_validate(kept).model_dump(mode="json", exclude={"metadata"}),
        engine=_engine(options),
        priority=options.priority,
        user_metadata=dict(options.metadata),
        source_name=clean_name(name),
        source_media_type=upload.media_type,
        source_bytes=upload.bytes,
        source_sha256=upload.sha256,
        sealed_password=_sealed(options),
        request_id=actor.request_id,
    )
    job = jobs.create(session, draft)
    facts = {"bytes": upload.bytes, "media_type": upload.media_type, "engine": job.engine}
    thing = jobs.public_id(job_id)
    audit.record(session, caller.tenant, actor, Action.JOB_CREATED, thing, **facts)
    return job


def retry(
    session: Session,
    old: Job | None,
    *,
    job_id: UUID,
    chosen: str,
    password: str | None,
    may_prompt: bool,
    actor: Actor,
) -> Job:
    """A new job that reads pages of a finished one again and takes its other good pages over.

    The document must lie under the new job's key already, and `old` be locked, so that it neither
    expires nor is deleted meanwhile: whoever takes its objects away is to know all its retries.
    Raises JobDeleted, and what `reused` does.
    """
    if old is None:
        raise ResultExpired(GONE)
    if old.deleted_at is not None:
        raise JobDeleted
    kept = reused(session, old, chosen, may_prompt=may_prompt)
    options = JobOptions.model_validate(old.options, extra=NEWER)
    draft = Job(
        id=job_id,
        tenant=old.tenant,
        options=old.options,
        engine=_engine(options),
        priority=old.priority,
        user_metadata=old.user_metadata,
        source_name=old.source_name,
        source_media_type=old.source_media_type,
        source_bytes=old.source_bytes,
        source_sha256=old.source_sha256,
        sealed_password=sealing.seal(password) if password is not None else None,
        retry_of=old.id,
        request_id=actor.request_id,
    )
    job = jobs.create(session, draft)
    new_pages.reuse(session, old, job, kept)
    facts = {"retry_of": jobs.public_id(old.id), "pages_reused": len(kept)}
    audit.record(session, old.tenant, actor, Action.JOB_RETRIED, jobs.public_id(job_id), **facts)
    return job


def reused(session: Session, old: Job, chosen: str, *, may_prompt: bool) -> list[int]:
    """The pages that a new job would take over from `old`, where it may read the `chosen` again.

    Raises JobNotFinished, NothingToRetry, ResultExpired, InvalidPageRange, and what `check` does.
    """
    if old.status is JobStatus.EXPIRED:
        raise ResultExpired(GONE)
    if not old.status.is_final:
        raise JobNotFinished
    check(JobOptions.model_validate(old.options, extra=NEWER), may_prompt=may_prompt)
    good = set(pages.numbers(session, old.id, WorkStatus.SUCCEEDED))
    again = _again(old, chosen, good)
    if old.pages_total is not None and not again:
        raise NothingToRetry
    return sorted(good - again)


def clean_name(name: str) -> str:
    """What a client calls its document, as data: no control characters, no path, bounded."""
    printable = "".join(character for character in name if character.isprintable())
    last = printable.replace("\\", "/").rpartition("/")[2]
    return last[-NAME_CHARACTERS:] or "document"


def _again(old: Job, chosen: str, good: set[int]) -> set[int]:
    """The pages of `old` that are to be read again; none are known where it was never opened."""
    if old.source_pages is None:
        return set()
    everything = set(jobs.chosen_pages(old.options, old.source_pages))
    if chosen == "all":
        return everything
    if chosen == "failed":
        return everything - good
    return everything & set(PageRange.parse(chosen).select(old.source_pages))


def _engine(options: JobOptions) -> str:
    """Which engine reads; raises InvalidOptions where it cannot do what is asked."""
    engine = _chosen_engine(options)
    _check_ability(engine, options)
    return engine


def _chosen_engine(options: JobOptions) -> str:
    offered = settings().engines
    if options.engine == "auto":
        return offered[0]
    if options.engine not in offered:
        known = ", ".join(("auto", *offered))
        raise InvalidOptions(f"engine: {options.engine} is not offered here; there are {known}")
    return options.engine


def _check_ability(engine: str, options: JobOptions) -> None:
    able = abilities.of(engine)
    if options.task not in able.tasks:
        known = ", ".join(task for task in Task if task in able.tasks)
        raise InvalidOptions(f"task: {engine} has no {options.task}; there are {known}")
    if not able.has(options.mode):
        known = ", ".join((Mode.AUTO, *able.modes))
        raise InvalidOptions(f"mode: {engine} has no {options.mode}; there are {known}")


def _sealed(options: SubmitOptions) -> bytes | None:
    password = options.password
    return sealing.seal(password.get_secret_value()) if password is not None else None
