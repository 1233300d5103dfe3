"""Who a process is to the database: its role, and the tenant whose rows a transaction may touch.

What each role may do stands in `migrations/versions`, next to the policies that bind it. Tables
belong to their owner, as whom nothing runs but `octavo migrate`, `octavo keys` and `octavo audit`.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """A role that processes connect as. None of them may change the schema, or create others."""

    GATEWAY = "octavo_gateway"  # the rows of the tenant it serves, and no other
    WORKER = "octavo_worker"  # documents, pages and results of all tenants; no keys, no audit log
    DISPATCHER = "octavo_dispatcher"  # what is due and who has room; nothing of what is read
    SWEEPER = "octavo_sweeper"  # what ends, expires and is deleted; no keys
