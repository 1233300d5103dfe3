"""The first schema."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


# Final is final: a row that has ended may be deleted or, a job, expire. Nothing else.
ABSORBING = """
CREATE FUNCTION octavo_refuse_revival() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% % is final (%), and cannot become %',
    TG_TABLE_NAME, OLD.id, OLD.status, NEW.status USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER work_final BEFORE UPDATE OF status ON work FOR EACH ROW
  WHEN (OLD.status IN ('succeeded', 'failed', 'cancelled') AND NEW.status <> OLD.status)
  EXECUTE FUNCTION octavo_refuse_revival();
CREATE TRIGGER jobs_final BEFORE UPDATE OF status ON jobs FOR EACH ROW
  WHEN (OLD.status NOT IN ('queued', 'running') AND NEW.status NOT IN (OLD.status, 'expired'))
  EXECUTE FUNCTION octavo_refuse_revival();
"""


def upgrade() -> None:
    op.create_table(
        "tenants",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("weight", sa.Float(), server_default="1", nullable=False),
        sa.Column("max_busy", sa.Integer(), server_default="10000", nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "tombstones",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column(
            "purged_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("check_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("objects", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index(
        "tombstones_to_check",
        "tombstones",
        ["check_at"],
        unique=False,
        postgresql_where="check_at IS NOT NULL",
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("queues", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("busy", sa.Integer(), server_default="0", nullable=False),
        sa.Column("draining", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column(
            "device", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("secret_hash", sa.LargeBinary(), nullable=False),
        sa.Column("label", sa.Text(), server_default="", nullable=False),
        sa.Column("scopes", sa.ARRAY(sa.Text()), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant"],
            ["tenants.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("status", sa.String(32), server_default="queued", nullable=False),
        sa.Column("finished_as", sa.String(32), nullable=True),
        sa.Column("options", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("engine", sa.Text(), nullable=False),
        sa.Column("priority", sa.String(32), nullable=False),
        sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("source_name", sa.Text(), nullable=False),
        sa.Column("source_media_type", sa.Text(), nullable=False),
        sa.Column("source_bytes", sa.BigInteger(), nullable=False),
        sa.Column("source_sha256", sa.Text(), nullable=False),
        sa.Column("sealed_password", sa.LargeBinary(), nullable=True),
        sa.Column("retry_of", sa.Uuid(), nullable=True),
        sa.Column("source_pages", sa.Integer(), nullable=True),
        sa.Column("pages_total", sa.Integer(), nullable=True),
        sa.Column("pages_succeeded", sa.Integer(), server_default="0", nullable=False),
        sa.Column("pages_failed", sa.Integer(), server_default="0", nullable=False),
        sa.Column("vision_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("engine_seconds", sa.Float(), server_default="0", nullable=False),
        sa.Column("result_attempt", sa.Integer(), nullable=True),
        sa.Column("warnings", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "pages_succeeded + pages_failed <= pages_total", name="jobs_pages_counted"
        ),
        sa.ForeignKeyConstraint(
            ["tenant"],
            ["tenants.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("tenant", "id"),
    )
    op.create_index(
        "jobs_by_tenant",
        "jobs",
        ["tenant", sa.literal_column("created_at DESC"), sa.literal_column("id DESC")],
        unique=False,
    )
    op.create_index(
        "jobs_deleted",
        "jobs",
        ["deleted_at"],
        unique=False,
        postgresql_where="deleted_at IS NOT NULL",
    )
    op.create_index(
        "jobs_to_expire",
        "jobs",
        ["expires_at"],
        unique=False,
        postgresql_where="expires_at IS NOT NULL",
    )
    op.create_index(
        "jobs_unfinished",
        "jobs",
        ["deadline_at"],
        unique=False,
        postgresql_where="status IN ('queued','running')",
    )
    op.create_table(
        "pages",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("page_no", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("image_key", sa.Text(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant", "job_id"], ["jobs.tenant", "jobs.id"], ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "page_no"),
    )
    op.create_table(
        "recognitions",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("page_no", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("needs_review", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "job_id"], ["jobs.tenant", "jobs.id"], ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "page_no"),
    )
    op.create_table(
        "work",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("page_no", sa.Integer(), server_default="0", nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("priority", sa.String(32), nullable=False),
        sa.Column("status", sa.String(32), server_default="queued", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("sends", sa.Integer(), server_default="0", nullable=False),
        sa.Column(
            "due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant", "job_id"], ["jobs.tenant", "jobs.id"], ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("job_id", "kind", "page_no"),
        postgresql_with={"fillfactor": 80, "autovacuum_vacuum_scale_factor": 0.01},
    )
    op.create_index(
        "work_busy",
        "work",
        ["queue", "tenant"],
        unique=False,
        postgresql_where="status = 'running' OR (status = 'queued' AND sent_at IS NOT NULL)",
    )
    op.create_index(
        "work_due",
        "work",
        ["queue", "priority", "tenant", "due_at", "id"],
        unique=False,
        postgresql_where="status = 'queued' AND sent_at IS NULL",
    )
    op.execute(ABSORBING)


def downgrade() -> None:
    op.drop_index(
        "work_due", table_name="work", postgresql_where="status = 'queued' AND sent_at IS NULL"
    )
    op.drop_index(
        "work_busy",
        table_name="work",
        postgresql_where="status = 'running' OR (status = 'queued' AND sent_at IS NOT NULL)",
    )
    op.drop_table("work")
    op.drop_table("recognitions")
    op.drop_table("pages")
    op.drop_index(
        "jobs_unfinished", table_name="jobs", postgresql_where="status IN ('queued','running')"
    )
    op.drop_index("jobs_to_expire", table_name="jobs", postgresql_where="expires_at IS NOT NULL")
    op.drop_index("jobs_deleted", table_name="jobs", postgresql_where="deleted_at IS NOT NULL")
    op.drop_index("jobs_by_tenant", table_name="jobs")
    op.drop_table("jobs")
    op.drop_table("api_keys")
    op.drop_table("workers")
    op.drop_index(
        "tombstones_to_check", table_name="tombstones", postgresql_where="check_at IS NOT NULL"
    )
    op.drop_table("tombstones")
    op.drop_table("tenants")
    op.execute("DROP FUNCTION octavo_refuse_revival")
