"""The advisory locks of Postgres that are held here: they share one space of numbers."""

from __future__ import annotations

from enum import IntEnum, unique


@unique
class AdvisoryLock(IntEnum):
    """What one process at a time does."""

    MIGRATION = 7_242_301
    DISPATCH = 7_242_302
    COLLECTION = 7_242_303
    ROLES = 7_242_304
