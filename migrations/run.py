"""Bringing a database to the schema of this version."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory


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
