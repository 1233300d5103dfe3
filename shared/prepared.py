"""Statements that Postgres plans once a connection, and not whenever they are asked.

For those that every page goes through: planning them costs as much as doing them.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import TextClause, text

_ASKED = re.compile(r"EXECUTE octavo_(\w+)")
_PARAMETER = re.compile(r"(?<!:):([a-z][a-z0-9_]*)")


@dataclass(frozen=True)
class Definition:
    """What makes Postgres plan a statement."""

    name: str
    sql: str


_definitions: dict[str, Definition] = {}


def statement(name: str, sql: str, **types: str) -> TextClause:
    """A statement of that name, which nobody else has, with `:parameters` of these Postgres types."""
    assert name not in _definitions, name
    numbers = {parameter: f"${number}" for number, parameter in enumerate(types, start=1)}
    numbered = _PARAMETER.sub(lambda found: numbers[found[1]], sql)
    prepare = f"PREPARE octavo_{name} ({', '.join(types.values())}) AS {numbered}"
    _definitions[name] = Definition(name, prepare)
    values = ", ".join(f"CAST(:{parameter} AS {type_})" for parameter, type_ in types.items())
    return text(f"EXECUTE octavo_{name}({values})")


def definition(asked: str, planned: Collection[str]) -> Definition | None:
    """What is to be planned before this can be asked; None where nothing is."""
    found = _ASKED.match(asked)
    return _definitions[found[1]] if found and found[1] not in planned else None
