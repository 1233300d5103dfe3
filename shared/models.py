"""The tables. What may happen to their rows stands in the modules named for them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    SmallInteger,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.status import JobStatus, Lane, WorkKind, WorkStatus

NOW = func.now()


def _names(enum: type[StrEnum]) -> Enum:
    """A column that holds the values of `enum`, as text: a new one needs no migration."""
    return Enum(enum, native_enum=False, length=32, values_callable=list)


class Model(DeclarativeBase):
    """A table of Octavo."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it once
        str: Text,
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
        JobStatus: _names(JobStatus),
        WorkStatus: _names(WorkStatus),
        WorkKind: _names(WorkKind),
        Lane: _names(Lane),
    }


class Tenant(Model):
    """Who asks. Every other row belongs to one."""

    __tablename__ = "tenants"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    weight: Mapped[float] = mapped_column(Float, server_default="1")  # of its share of the workers
    max_busy: Mapped[int] = mapped_column(server_default="10000")  # work sent or running at once
    custom_prompts: Mapped[bool] = mapped_column(server_default=text("false"))  # may send them
    # Its quota; where None, what the settings say (shared/quotas.py).
    max_open_jobs: Mapped[int | None]
    max_open_pages: Mapped[int | None]
    max_stored_bytes: Mapped[int | None] = mapped_column(BigInteger)
    max_requests_per_second: Mapped[float | None] = mapped_column(Float)
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Footprint(Model):
    """What a tenant has the platform hold. A trigger on `jobs` counts, at the end of each transaction.

    So it is right whatever changes a job, and its row, which all of a tenant's jobs share, is
    locked last and for no longer than a commit takes.
    """

    __tablename__ = "footprints"

    tenant: Mapped[UUID] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True
    )
    jobs: Mapped[int]  # that have not ended
    pages: Mapped[int] = mapped_column(BigInteger)  # of these jobs; 1 where not opened yet
    bytes: Mapped[int] = mapped_column(BigInteger)  # of documents in the store

    __table_args__ = ({"postgresql_with": {"fillfactor": 50}},)


class IdempotencyKey(Model):
    """A client's name for one request: under way while `job_id` is None, then answered."""

    __tablename__ = "idempotency_keys"

    tenant: Mapped[UUID] = mapped_column(
        ForeignKey("tenants.id", ondelete="CASCADE"), primary_key=True
    )
    route: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    holder: Mapped[UUID]  # the request that may answer it
    held_until: Mapped[datetime]  # after that another request may take it over
    fingerprint: Mapped[bytes | None] = mapped_column(LargeBinary)  # of what was asked
    job_id: Mapped[UUID | None]  # what came of it; may have been deleted since
    expires_at: Mapped[datetime]

    __table_args__ = (Index("idempotency_keys_to_forget", "expires_at"),)


class ApiKey(Model):
    """How a tenant shows who it is. The secret itself is nowhere."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    tenant: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    secret_hash: Mapped[bytes] = mapped_column(LargeBinary)
    label: Mapped[str] = mapped_column(server_default="")
    scopes: Mapped[list[str]]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Job(Model):
    """One document that a tenant asked to have read, with how far that is."""

    __tablename__ = "jobs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[UUID] = mapped_column(ForeignKey("tenants.id"))
    status: Mapped[JobStatus] = mapped_column(server_default=JobStatus.QUEUED)
    finished_as: Mapped[JobStatus | None]
    options: Mapped[dict[str, Any]]
    engine: Mapped[str]  # what `options.engine` came to
    priority: Mapped[Lane]
    user_metadata: Mapped[dict[str, Any]] = mapped_column("metadata")
    source_name: Mapped[str]
    source_media_type: Mapped[str]
    source_bytes: Mapped[int] = mapped_column(BigInteger)
    source_sha256: Mapped[str]
    sealed_password: Mapped[bytes | None] = mapped_column(LargeBinary)
    retry_of: Mapped[UUID | None]
    source_pages: Mapped[int | None]  # that the document has; known once it was opened
    pages_total: Mapped[int | None]  # of them that were asked for
    pages_succeeded: Mapped[int] = mapped_column(server_default="0")
    pages_failed: Mapped[int] = mapped_column(server_default="0")
    vision_tokens: Mapped[int | None] = mapped_column(BigInteger)
    output_tokens: Mapped[int | None] = mapped_column(BigInteger)
    engine_seconds: Mapped[float] = mapped_column(Float, server_default="0")
    result_attempt: Mapped[int | None]  # the attempt of assemble whose objects are the result
    warnings: Mapped[list[str]] = mapped_column(server_default="{}")
    error: Mapped[dict[str, Any] | None]
    request_id: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=NOW)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    deadline_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        # What foreign keys of a tenant's rows point to: a row cannot point to another tenant's job.
        UniqueConstraint("tenant", "id"),
        CheckConstraint("pages_succeeded + pages_failed <= pages_total", name="jobs_pages_counted"),
        Index("jobs_by_tenant", "tenant", text("created_at DESC"), text("id DESC")),
        Index("jobs_unfinished", "deadline_at", postgresql_where="status IN ('queued','running')"),
        Index("jobs_to_expire", "expires_at", postgresql_where="expires_at IS NOT NULL"),
        Index("jobs_deleted", "deleted_at", postgresql_where="deleted_at IS NOT NULL"),
    )


class Page(Model):
    """What is known of one page of a job. Whether it has been read is its work's status."""

    __tablename__ = "pages"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    page_no: Mapped[int] = mapped_column(primary_key=True)  # in the document, from 1
    tenant: Mapped[UUID]
    image_key: Mapped[str | None]  # None: could not be rendered, or was read by an earlier job
    width: Mapped[int | None]
    height: Mapped[int | None]
    # While it climbs the ladder (shared/ladder.py): how it was read before, and the best of it.
    tries: Mapped[list[dict[str, Any]] | None] = mapped_column(JSONB, deferred=True)
    draft: Mapped[str | None] = mapped_column(deferred=True)  # a Recognition as JSON

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "job_id"], ["jobs.tenant", "jobs.id"], ondelete="CASCADE"),
        Index("pages_drafts", "job_id", "page_no", postgresql_where="draft IS NOT NULL"),
    )


class Work(Model):
    """Anything that a worker must do. `attempt` is the fencing token: it only grows."""

    __tablename__ = "work"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    tenant: Mapped[UUID]
    job_id: Mapped[UUID]
    kind: Mapped[WorkKind]
    page_no: Mapped[int] = mapped_column(server_default="0")  # 0 where the work is a whole job's
    queue: Mapped[str]  # which workers can do it
    priority: Mapped[Lane]
    status: Mapped[WorkStatus] = mapped_column(server_default=WorkStatus.QUEUED)
    attempt: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(SmallInteger, server_default="0")
    among: Mapped[int | None] = mapped_column(SmallInteger)  # company of a page that is suspected
    sends: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime] = mapped_column(server_default=NOW)
    turn_at: Mapped[datetime] = mapped_column(server_default=NOW)  # its place in its tenant's queue
    sent_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    worker: Mapped[str | None]
    error: Mapped[dict[str, Any] | None]

    # Indices: migrations/versions. None may hold `lease_until`: renewals would cease to be HOT.
    __table_args__ = (
        ForeignKeyConstraint(["tenant", "job_id"], ["jobs.tenant", "jobs.id"], ondelete="CASCADE"),
        UniqueConstraint("job_id", "kind", "page_no"),
        Index(
            "work_turns",
            "queue",
            "priority",
            "tenant",
            "turn_at",
            "id",
            postgresql_include=["due_at"],
            postgresql_where="status = 'queued' AND sent_at IS NULL",
        ),
        Index(
            "work_busy",
            "queue",
            "tenant",
            postgresql_where="status = 'running' OR (status = 'queued' AND sent_at IS NOT NULL)",
        ),
        {"postgresql_with": {"fillfactor": 80, "autovacuum_vacuum_scale_factor": 0.01}},
    )


class StoredRecognition(Model):
    """What an engine said of a page: born in the transaction that ends the page's work."""

    __tablename__ = "recognitions"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    page_no: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[UUID]
    attempt: Mapped[int] = mapped_column(Integer)
    needs_review: Mapped[bool] = mapped_column(server_default=text("false"))
    confidence: Mapped[float | None] = mapped_column(Float)
    body: Mapped[str]  # a Recognition as JSON; read whole or not at all

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "job_id"], ["jobs.tenant", "jobs.id"], ondelete="CASCADE"),
    )


class Glance(Model):
    """A page that somebody watches being read, and its text so far."""

    __tablename__ = "glances"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    page_no: Mapped[int] = mapped_column(primary_key=True)
    tenant: Mapped[UUID]
    wanted_until: Mapped[datetime]
    attempt: Mapped[int | None]  # whose text it is; None: nothing was told yet
    text: Mapped[str] = mapped_column(server_default="")

    __table_args__ = (
        ForeignKeyConstraint(["tenant", "job_id"], ["jobs.tenant", "jobs.id"], ondelete="CASCADE"),
        {"prefixes": ["UNLOGGED"]},  # lost in a crash, and written again where it is still wanted
    )


class Worker(Model):
    """A process behind the queue, as it told of itself: a worker, or who sends or sweeps."""

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(server_default="worker")  # cpu, engine, dispatcher, sweeper
    queues: Mapped[list[str]]
    slots: Mapped[int]
    busy: Mapped[int] = mapped_column(server_default="0")
    draining: Mapped[bool] = mapped_column(server_default=text("false"))
    version: Mapped[str]
    device: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    started_at: Mapped[datetime] = mapped_column(server_default=NOW)
    last_message_at: Mapped[datetime | None]
    last_seen_at: Mapped[datetime] = mapped_column(server_default=NOW)


class Tombstone(Model):
    """A deleted job: that it was, when, and what went with it."""

    __tablename__ = "tombstones"

    job_id: Mapped[UUID] = mapped_column(primary_key=True)
    tenant: Mapped[UUID]
    deleted_at: Mapped[datetime]
    purged_at: Mapped[datetime] = mapped_column(server_default=NOW)
    check_at: Mapped[datetime | None]  # when to look once more for objects of a late writer
    rows: Mapped[int]
    objects: Mapped[int]

    __table_args__ = (
        Index("tombstones_to_check", "check_at", postgresql_where="check_at IS NOT NULL"),
    )


class Audit(Model):
    """Who did what to which thing, when and from where. Rows are added, and never changed."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    at: Mapped[datetime] = mapped_column(server_default=NOW)
    tenant: Mapped[UUID]  # no foreign key: the log outlives whom it is about
    actor: Mapped[str]  # the id of an API key; or `operator`, `sweeper`
    action: Mapped[str]
    object: Mapped[str]  # the id of a job, a page or a key
    request_id: Mapped[str | None]
    address: Mapped[str | None]
    facts: Mapped[dict[str, Any]] = mapped_column(server_default="{}")

    __table_args__ = (
        Index("audit_by_tenant", "tenant", "at"),
        Index("audit_by_time", "at", postgresql_using="brin"),  # rows come in order of time
    )
