"""What each row of the workers table is, and when it last had a message."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Constant defaults: no row is rewritten, and code that knows neither column goes on.
    op.add_column("workers", sa.Column("kind", sa.Text(), server_default="worker", nullable=False))
    op.add_column("workers", sa.Column("last_message_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("workers", "last_message_at")
    op.drop_column("workers", "kind")
