"""Which schema this version of the code was written for, and which one the database has.

Migrations first add and a release later remove, so code works with every schema that is not older
than its own.
"""

from __future__ import annotations

from typing import Literal

from sqlalchemy import text
from sqlalchemy.orm import Session

NEWER: Literal["ignore"] = "ignore"
"""What becomes of fields in stored JSON that this version does not know: a newer one wrote them."""

REVISION = "0009"
"""The newest revision under migrations/versions; a test holds them equal."""


def current(session: Session) -> str | None:
    """The revision that the database is at; None for an empty one."""
    if session.execute(text("SELECT to_regclass('alembic_version')")).scalar() is None:
        return None
    return session.execute(text("SELECT version_num FROM alembic_version")).scalar()


def is_behind(revision: str | None) -> bool:
    """Whether a database at `revision` lacks what this code needs; revisions count upwards."""
    return revision is None or revision < REVISION
