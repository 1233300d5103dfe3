"""Bringing a database to the schema of this version."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, text

from shared.db import engine


def configuration() -> Config:
    """Alembic's configuration; there is no file of it, since nothing in it is anybody's choice."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def upgrade(revision: str = "head") -> None:
    """Apply what is missing. Several may call it at once: one works, the others wait."""
    command.upgrade(configuration(), revision)


def head() -> str:
    """The revision that this version of the code was written for."""
    revision = ScriptDirectory.from_config(configuration()).get_current_head()
    assert revision is not None
    return revision


def current(of: Engine | None = None) -> str | None:
    """The revision that the database is at; None for an empty one."""
    with (of or engine()).connect() as connection:
        if connection.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
