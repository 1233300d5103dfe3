"""What a page that climbs the ladder was read as so far, and the best of it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

ROLES = "octavo_worker, octavo_sweeper"  # who may end pages


def upgrade() -> None:
    op.add_column(
        "pages", sa.Column("tries", postgresql.JSONB(astext_type=sa.Text()), nullable=True)
    )
    op.add_column("pages", sa.Column("draft", sa.Text(), nullable=True))
    op.execute(f"GRANT UPDATE (tries, draft) ON pages TO {ROLES}")


def downgrade() -> None:
    op.drop_column("pages", "draft")
    op.drop_column("pages", "tries")
