"""From page rows that wait to their results: the queue, the store and the engine's host alone.

Run by `benchmarks.overhead`, with the platform's settings in the environment; prints pages a second.
"""

from __future__ import annotations

import sys
import time
from uuid import UUID, uuid4

from sqlalchemy import select, text

from benchmarks.backlog import queue_pages
from benchmarks.documents import page_images
from shared import storage
from shared.db import transaction
from shared.models import Tenant

LOOK_SECONDS = 0.05

_READ = text(
    "SELECT coalesce(sum(pages_succeeded), 0) FROM jobs WHERE tenant = :tenant AND source_name = 'rows'"
)


def main(pages: int) -> None:
    """Queue so many pages at once and wait until they are read."""
    tenant = _tenant()
    key = storage.page_key(tenant, uuid4(), 1, 1)
    storage.put(key, page_images(1)[0])
    end = _read(tenant) + pages
    queue_pages(tenant, pages, key=key)
    began = time.perf_counter()
    while _read(tenant) < end:
        time.sleep(LOOK_SECONDS)
    print(pages / (time.perf_counter() - began))


def _tenant() -> UUID:
    with transaction() as session:
        return session.scalars(select(Tenant.id)).one()


def _read(tenant: UUID) -> int:
    with transaction(alone=True) as session:
        return int(session.execute(_READ, {"tenant": tenant}).scalar_one())


if __name__ == "__main__":
    main(int(sys.argv[1]))
