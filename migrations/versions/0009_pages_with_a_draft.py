"""Pages with a draft are few, and found without reading the others."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Built beside the running system, outside a transaction: each step may be repeated.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pages_drafts")
        op.create_index(
            "pages_drafts",
            "pages",
            ["job_id", "page_no"],
            postgresql_where=sa.text("draft IS NOT NULL"),
            postgresql_concurrently=True,
        )


def downgrade() -> None:
    op.drop_index("pages_drafts", table_name="pages")
