"""How Alembic runs a migration here: one at a time, and never in the way of the running system."""

from alembic import context
from sqlalchemy import create_engine, text

from shared.config import settings
from shared.models import Model

ADVISORY_LOCK = 7_242_301


def run() -> None:
    """Apply the revisions that are missing, each in a transaction of its own."""
    engine = create_engine(settings().database_url.get_secret_value())
    with engine.connect() as connection:
        # A migration that waits for a lock makes all others wait behind it: give up early.
        connection.execute(text("SET lock_timeout = '4s'"))
        connection.execute(text("SET statement_timeout = '60s'"))
        connection.execute(text("SELECT pg_advisory_lock(:lock)"), {"lock": ADVISORY_LOCK})
        connection.commit()
        context.configure(
            connection=connection, target_metadata=Model.metadata, transaction_per_migration=True
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


run()
