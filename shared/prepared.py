"""Statements that each connection to Postgres plans once.

To plan a statement of many parts takes as long as to run it, and psycopg2 has each one planned each
time. A connection that is pooled elsewhere for single transactions forgets such a plan: whatever
prepares statements connects to Postgres itself, or to a pooler that keeps a session's server.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import CursorResult, Dialect, bindparam, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session
from sqlalchemy.types import TypeEngine

_DIALECT: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
_PARAMETER = re.compile(r"(?<!:):(\w+)")  # two colons are a cast


class Prepared:
    """A statement with named parameters, as `text` takes them, and the type of each."""

    def __init__(self, name: str, statement: str, **types: TypeEngine[Any]) -> None:
        """`name` is this statement's alone."""
        places = {parameter: f"${place}" for place, parameter in enumerate(types, 1)}
        numbered = _PARAMETER.sub(lambda found: places[found[1]], statement)
        kinds = ", ".join(kind.compile(_DIALECT) for kind in types.values())
        self._name = name
        self._prepare = text(f"PREPARE {name} ({kinds}) AS {_literally(numbered)}")
        arguments = ", ".join(f":{parameter}" for parameter in types)
        parameters = [bindparam(parameter, type_=kind) for parameter, kind in types.items()]
        self._execute = text(f"EXECUTE {name} ({arguments})").bindparams(*parameters)

    def execute(self, session: Session, values: dict[str, Any]) -> CursorResult[Any]:
        """Carry it out, planned where this connection has it already."""
        connection = session.connection()
        if self._name not in connection.info:
            connection.execute(self._prepare)
            connection.info[self._name] = True
        return connection.execute(self._execute, values)


def _literally(statement: str) -> str:
    """As `text` takes what has no parameters."""
    return statement.replace(":", "\\:")
