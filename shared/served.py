"""What tenants were given lately, so that who had little is next.

By what runs at this moment alone, two tenants would share from the first page on, and a small job
would take twice its time beside a large one. With what was given lately a newcomer comes first
until it has had as much, and then they share.
"""

from __future__ import annotations

import time
from uuid import UUID

HALF_LIFE_SECONDS = 20
"""After which half of it is forgotten; so long, at most, one that had everything stands back."""

FORGOTTEN = 0.05
"""Units of work of which nothing need be known any more."""


class Served:
    """Units of work that each tenant was given lately; forgotten when the process ends."""

    def __init__(self) -> None:
        self._units: dict[UUID, float] = {}
        self._at = time.monotonic()

    def note(self, tenant: UUID) -> None:
        """A tenant was given one more."""
        self._units[tenant] = self._units.get(tenant, 0.0) + 1

    def units(self) -> dict[UUID, float]:
        """What is not forgotten by now."""
        now = time.monotonic()
        kept = 0.5 ** ((now - self._at) / HALF_LIFE_SECONDS)
        self._at = now
        faded = {tenant: units * kept for tenant, units in self._units.items()}
        self._units = {tenant: units for tenant, units in faded.items() if units > FORGOTTEN}
        return self._units
