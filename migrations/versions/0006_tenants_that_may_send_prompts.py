"""Some tenants may send prompts of their own."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A constant default: no row is rewritten. Roles that may see tenants see the column as well.
    op.add_column(
        "tenants",
        sa.Column("custom_prompts", sa.Boolean(), server_default="false", nullable=False),
    )


def downgrade() -> None:
    op.drop_column("tenants", "custom_prompts")
