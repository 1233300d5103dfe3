"""A page that may have killed its engine is read in small company."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("work", sa.Column("among", sa.SmallInteger(), nullable=True))


def downgrade() -> None:
    op.drop_column("work", "among")
