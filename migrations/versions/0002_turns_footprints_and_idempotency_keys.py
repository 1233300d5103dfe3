"""Turns within a tenant's queue, what a tenant has and may have, and keys of requests."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

UNSENT = sa.text("status = 'queued' AND sent_at IS NULL")

# As the owner, so that who changes a job need not be able to change what is counted of it.
# Deferred: the one row of a tenant is touched at the very end of a transaction, after all other
# locks, and for no longer than the commit takes. A page that ends changes neither of the columns.
FOOTPRINTS = """
CREATE FUNCTION octavo_count_footprint() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  owner uuid := coalesce(NEW.tenant, OLD.tenant);
  served text := current_setting('octavo.tenant', true);
  more_jobs integer := 0;
  more_pages bigint := 0;
  more_bytes bigint := 0;
BEGIN
  IF TG_OP <> 'INSERT' THEN
    IF OLD.status IN ('queued', 'running') THEN
      more_jobs := more_jobs - 1;
      more_pages := more_pages - coalesce(OLD.pages_total, 1);
    END IF;
    IF OLD.status <> 'expired' THEN
      more_bytes := more_bytes - OLD.source_bytes;
    END IF;
  END IF;
  IF TG_OP <> 'DELETE' THEN
    IF NEW.status IN ('queued', 'running') THEN
      more_jobs := more_jobs + 1;
      more_pages := more_pages + coalesce(NEW.pages_total, 1);
    END IF;
    IF NEW.status <> 'expired' THEN
      more_bytes := more_bytes + NEW.source_bytes;
    END IF;
  END IF;
  IF more_jobs <> 0 OR more_pages <> 0 OR more_bytes <> 0 THEN
    PERFORM set_config('octavo.tenant', '', true);  -- it counts whatever changed
    INSERT INTO footprints AS had (tenant, jobs, pages, bytes)
    VALUES (owner, more_jobs, more_pages, more_bytes)
    ON CONFLICT (tenant) DO UPDATE SET jobs = had.jobs + EXCLUDED.jobs,
      pages = had.pages + EXCLUDED.pages, bytes = had.bytes + EXCLUDED.bytes;
    PERFORM set_config('octavo.tenant', coalesce(served, ''), true);
  END IF;
  RETURN NULL;
END $$;
REVOKE EXECUTE ON FUNCTION octavo_count_footprint() FROM PUBLIC;
CREATE CONSTRAINT TRIGGER jobs_footprint_rows AFTER INSERT OR DELETE ON jobs
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION octavo_count_footprint();
CREATE CONSTRAINT TRIGGER jobs_footprint AFTER UPDATE OF status, pages_total ON jobs
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
  WHEN (OLD.status <> NEW.status OR OLD.pages_total IS DISTINCT FROM NEW.pages_total)
  EXECUTE FUNCTION octavo_count_footprint();
INSERT INTO footprints (tenant, jobs, pages, bytes)
SELECT tenant, count(*) FILTER (WHERE status IN ('queued', 'running')),
  coalesce(sum(coalesce(pages_total, 1)) FILTER (WHERE status IN ('queued', 'running')), 0),
  coalesce(sum(source_bytes) FILTER (WHERE status <> 'expired'), 0)
FROM jobs GROUP BY tenant;
"""


def upgrade() -> None:
    # Indexes are built beside the running system, outside a transaction: each step may be repeated.
    with op.get_context().autocommit_block():
        op.execute(
            "ALTER TABLE work ADD COLUMN IF NOT EXISTS "
            "turn_at timestamp with time zone DEFAULT now() NOT NULL"
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS work_turns")
        op.create_index(
            "work_turns",
            "work",
            ["queue", "priority", "tenant", "turn_at", "id"],
            postgresql_include=["due_at"],
            postgresql_where=UNSENT,
            postgresql_concurrently=True,
        )
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS work_due")
    for name in ("max_open_jobs", "max_open_pages"):
        op.add_column("tenants", sa.Column(name, sa.Integer(), nullable=True))
    op.add_column("tenants", sa.Column("max_stored_bytes", sa.BigInteger(), nullable=True))
    op.add_column("tenants", sa.Column("max_requests_per_second", sa.Float(), nullable=True))
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("route", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("holder", sa.Uuid(), nullable=False),
        sa.Column("held_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant", "route", "key"),
    )
    op.create_index("idempotency_keys_to_forget", "idempotency_keys", ["expires_at"])
    op.create_table(
        "footprints",
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("jobs", sa.Integer(), nullable=False),
        sa.Column("pages", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("tenant"),
        postgresql_with={"fillfactor": 50},
    )
    op.execute(FOOTPRINTS)


def downgrade() -> None:
    op.execute("DROP TRIGGER jobs_footprint ON jobs")
    op.execute("DROP TRIGGER jobs_footprint_rows ON jobs")
    op.execute("DROP FUNCTION octavo_count_footprint")
    op.drop_table("footprints")
    op.drop_table("idempotency_keys")
    for name in (
        "max_requests_per_second",
        "max_stored_bytes",
        "max_open_pages",
        "max_open_jobs",
    ):
        op.drop_column("tenants", name)
    op.create_index(
        "work_due",
        "work",
        ["queue", "priority", "tenant", "due_at", "id"],
        postgresql_where=UNSENT,
    )
    op.drop_index("work_turns", table_name="work", postgresql_where=UNSENT)
    op.drop_column("work", "turn_at")
