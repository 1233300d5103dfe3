"""Roles, row-level security, and the audit log.

A second wall behind the application's own filters: whoever forgets one sees no foreign row.

The gateway's role is bound to the tenant that its transaction names (`shared.db.transaction`).
The other roles work for all tenants and have a policy that says so, table by table, in place of
BYPASSRLS: that would hold for tables they must not see, and only a superuser could give it. The
owner is bound like the gateway inside a tenant's context, and sees everything outside of one:
migrations that change rows and the operator's commands need that.

Roles belong to the whole cluster: they are made without a login where they are missing, and stay
at a downgrade. `octavo migrate` lets them in where it is given passwords.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('octavo.tenant', true), '')::uuid"

# The column that names the tenant, of every table that has one.
TABLES = {
    "tenants": "id",
    "api_keys": "tenant",
    "jobs": "tenant",
    "pages": "tenant",
    "work": "tenant",
    "recognitions": "tenant",
    "tombstones": "tenant",
    "footprints": "tenant",
    "idempotency_keys": "tenant",
    "audit": "tenant",
}

GATEWAY_CHANGES = (
    "status, error, finished_at, expires_at, sealed_password, deleted_at, "
    "source_pages, pages_total, pages_succeeded"
)
WORKER_CHANGES = (
    "status, error, started_at, finished_at, expires_at, sealed_password, source_pages, "
    "pages_total, pages_succeeded, pages_failed, vision_tokens, output_tokens, engine_seconds, "
    "result_attempt, warnings"
)

GRANTS = {
    "octavo_gateway": {
        "tenants": "SELECT",
        "api_keys": "SELECT (id, tenant, last_used_at), UPDATE (last_used_at)",
        "jobs": f"SELECT, INSERT, UPDATE ({GATEWAY_CHANGES})",
        "pages": "SELECT, INSERT",
        "work": "SELECT, INSERT, UPDATE (status, lease_until)",
        "recognitions": "SELECT, INSERT",
        "tombstones": "SELECT",
        "footprints": "SELECT",
        "idempotency_keys": "SELECT, INSERT, UPDATE, DELETE",
        "workers": "SELECT",
        "audit": "INSERT",
    },
    "octavo_worker": {
        "jobs": f"SELECT, UPDATE ({WORKER_CHANGES})",
        "pages": "SELECT, INSERT",
        "work": "SELECT, INSERT, UPDATE",
        "recognitions": "SELECT, INSERT",
        "workers": "SELECT, INSERT, UPDATE, DELETE",
    },
    "octavo_dispatcher": {
        "tenants": "SELECT",
        "work": "SELECT, UPDATE (sent_at, sends)",
        "workers": "SELECT, INSERT, UPDATE, DELETE",  # its own row
    },
    "octavo_sweeper": {
        "tenants": "SELECT (id)",
        "jobs": f"SELECT, DELETE, UPDATE ({WORKER_CHANGES}, finished_as)",
        "pages": "SELECT, INSERT",
        "work": "SELECT, INSERT, UPDATE",
        "recognitions": "SELECT, INSERT, DELETE",  # it ends pages with the workers' statement
        "tombstones": "SELECT, INSERT, UPDATE (check_at, objects)",
        "idempotency_keys": "SELECT, DELETE, UPDATE (held_until)",  # the last to lock, before DELETE
        "workers": "SELECT, INSERT, UPDATE, DELETE",
        "audit": "INSERT",
    },
}

# Another database of the same cluster may have made it, or be making it now.
CREATE_ROLE = """
DO $$ BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') THEN
    CREATE ROLE {role} NOLOGIN NOINHERIT;
  END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL;
END $$
"""

# Doors through the wall, as narrow as what goes through them: inside, they are the owner.
FIND_KEY = """
CREATE FUNCTION octavo_find_key(key_id text) RETURNS SETOF api_keys
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  RETURN QUERY SELECT * FROM api_keys WHERE api_keys.id = key_id;
END $$
"""
QUEUE_PLACE = """
CREATE FUNCTION octavo_queue_place(lane text, since timestamptz, pages_queue text, most int)
RETURNS TABLE (jobs_ahead bigint, pages_ahead bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE served text := current_setting('octavo.tenant', true);
BEGIN
  PERFORM set_config('octavo.tenant', '', true);  -- a SET clause would take a superuser
  RETURN QUERY SELECT
    (SELECT count(*) FROM (
       SELECT FROM work WHERE queue = 'prepare' AND priority = lane AND status = 'queued'
         AND sent_at IS NULL AND due_at < since LIMIT most) AS jobs),
    (SELECT count(*) FROM (
       SELECT FROM work WHERE queue = pages_queue AND priority = lane AND status = 'queued'
         AND sent_at IS NULL LIMIT most) AS pages);
  PERFORM set_config('octavo.tenant', coalesce(served, ''), true);
END $$
"""
BACKLOG = """
CREATE FUNCTION octavo_backlog() RETURNS TABLE (pages bigint, weight double precision)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE served text := current_setting('octavo.tenant', true);
BEGIN
  PERFORM set_config('octavo.tenant', '', true);
  RETURN QUERY SELECT footprints.pages, tenants.weight FROM footprints
    JOIN tenants ON tenants.id = footprints.tenant WHERE footprints.jobs > 0;
  PERFORM set_config('octavo.tenant', coalesce(served, ''), true);
END $$
"""
# Jobs expire a fixed time after their end: the last ones by that index are the last that ended.
PAGE_SECONDS = """
CREATE FUNCTION octavo_page_seconds(recent int) RETURNS double precision
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  served text := current_setting('octavo.tenant', true);
  found double precision;
BEGIN
  PERFORM set_config('octavo.tenant', '', true);
  SELECT sum(engine_seconds) / nullif(sum(pages_succeeded), 0) INTO found FROM (
    SELECT engine_seconds, pages_succeeded FROM jobs WHERE expires_at IS NOT NULL
    ORDER BY expires_at DESC LIMIT recent) AS ended;
  PERFORM set_config('octavo.tenant', coalesce(served, ''), true);
  RETURN found;
END $$
"""
DOORS = {
    "octavo_backlog()": BACKLOG,
    "octavo_page_seconds(int)": PAGE_SECONDS,
    "octavo_find_key(text)": FIND_KEY,
    "octavo_queue_place(text, timestamptz, text, int)": QUEUE_PLACE,
}


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column(
            "at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("address", sa.Text(), nullable=True),
        sa.Column(
            "facts", postgresql.JSONB(astext_type=sa.Text()), server_default="{}", nullable=False
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("audit_by_tenant", "audit", ["tenant", "at"])
    op.create_index("audit_by_time", "audit", ["at"], postgresql_using="brin")
    for role, grants in GRANTS.items():
        op.execute(CREATE_ROLE.format(role=role))
        op.execute(f"GRANT SELECT ON alembic_version TO {role}")
        for table, privileges in grants.items():
            op.execute(f"GRANT {privileges} ON {table} TO {role}")
    for table, column in TABLES.items():
        _wall(table, column)
    for name, definition in DOORS.items():
        op.execute(definition)
        op.execute(f"REVOKE EXECUTE ON FUNCTION {name} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {name} TO octavo_gateway")


def _wall(table: str, column: str) -> None:
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(
        f"CREATE POLICY tenant ON {table} TO octavo_gateway, CURRENT_USER "
        f"USING ({column} = {TENANT}) WITH CHECK ({column} = {TENANT})"
    )
    op.execute(f"CREATE POLICY operator ON {table} TO CURRENT_USER USING ({TENANT} IS NULL)")
    others = [role for role in GRANTS if table in GRANTS[role] and role != "octavo_gateway"]
    if others:
        op.execute(f"CREATE POLICY platform ON {table} TO {', '.join(others)} USING (true)")


def downgrade() -> None:
    for name in DOORS:
        op.execute(f"DROP FUNCTION {name}")
    for table in TABLES:
        op.execute(f"DROP POLICY IF EXISTS platform ON {table}")
        op.execute(f"DROP POLICY operator ON {table}")
        op.execute(f"DROP POLICY tenant ON {table}")
        op.execute(f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    for role, grants in GRANTS.items():
        op.execute(f"REVOKE ALL ON alembic_version, {', '.join(grants)} FROM {role}")
    op.drop_table("audit")
