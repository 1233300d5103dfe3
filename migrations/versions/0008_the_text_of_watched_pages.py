"""The text so far of pages that somebody watches being read.

Not logged: what a crash of Postgres forgets is written again within a second, where somebody still
watches.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

TENANT = "nullif(current_setting('octavo.tenant', true), '')::uuid"

GRANTS = {
    "octavo_gateway": "SELECT, INSERT, UPDATE (wanted_until)",
    "octavo_worker": "SELECT, UPDATE (attempt, text)",
    "octavo_sweeper": "SELECT, DELETE, UPDATE (wanted_until)",  # the last to lock, before DELETE
}


def upgrade() -> None:
    op.create_table(
        "glances",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("page_no", sa.Integer(), nullable=False),
        sa.Column("tenant", sa.Uuid(), nullable=False),
        sa.Column("wanted_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("text", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant", "job_id"], ["jobs.tenant", "jobs.id"], ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("job_id", "page_no"),
        prefixes=["UNLOGGED"],
    )
    for role, privileges in GRANTS.items():
        op.execute(f"GRANT {privileges} ON glances TO {role}")
    op.execute("ALTER TABLE glances ENABLE ROW LEVEL SECURITY")
    op.execute("ALTER TABLE glances FORCE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY tenant ON glances TO octavo_gateway, CURRENT_USER "
        f"USING (tenant = {TENANT}) WITH CHECK (tenant = {TENANT})"
    )
    op.execute(f"CREATE POLICY operator ON glances TO CURRENT_USER USING ({TENANT} IS NULL)")
    op.execute("CREATE POLICY platform ON glances TO octavo_worker, octavo_sweeper USING (true)")


def downgrade() -> None:
    op.drop_table("glances")
