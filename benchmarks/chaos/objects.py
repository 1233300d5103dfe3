"""Whether the store holds what the rows say, and what it holds besides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from benchmarks import store
from shared import storage
from shared.formats import Format

_SOURCES = text("SELECT tenant, id FROM jobs WHERE status <> 'expired'")
_IMAGES = text(
    """
    SELECT image_key FROM pages JOIN jobs ON jobs.id = pages.job_id
    WHERE image_key IS NOT NULL AND status <> 'expired'
    """
)
_FIGURES = text(
    """
    SELECT r.tenant, r.job_id, page_no, attempt,
      jsonb_path_query(body::jsonb, '$.blocks[*].figure ? (@ != null)')::int AS number
    FROM recognitions AS r JOIN jobs ON jobs.id = r.job_id WHERE status <> 'expired'
    """
)
_RESULTS = text("SELECT tenant, id, result_attempt FROM jobs WHERE result_attempt IS NOT NULL")


@dataclass(frozen=True)
class Objects:
    """Keys, as they stand to the rows."""

    missing: frozenset[str]  # a row says that it is there
    of_deleted: frozenset[str]  # of jobs of which a tombstone says that all is gone
    unknown: frozenset[str]  # of jobs that never were: their gateway died before the row
    superseded: frozenset[str]  # of an attempt that was not the last


def compare(connection: Connection, stored: frozenset[str]) -> Objects:
    """How the keys in `stored` stand to the rows, where everything is at rest."""
    expected = frozenset(_expected(connection))
    jobs = {row.id.hex for row in connection.execute(text("SELECT id FROM jobs"))}
    deleted = {row.job_id.hex for row in connection.execute(text("SELECT job_id FROM tombstones"))}
    rest = stored - expected
    of_deleted = frozenset(key for key in rest if _job_of(key) in deleted)
    superseded = frozenset(key for key in rest if _job_of(key) in jobs)
    return Objects(expected - stored, of_deleted, rest - of_deleted - superseded, superseded)


def stored(environment: Mapping[str, str]) -> frozenset[str]:
    """All keys of the bucket that a platform's settings name."""
    client = store.client(environment)
    listed = client.get_paginator("list_objects_v2").paginate(
        Bucket=environment["OCTAVO_STORE_BUCKET"]
    )
    return frozenset(
        entry["Key"] for page in listed for entry in page.get("Contents", []) if "/" in entry["Key"]
    )


def _expected(connection: Connection) -> Iterator[str]:
    for row in connection.execute(_SOURCES):
        yield storage.source_key(row.tenant, row.id)
    yield from connection.execute(_IMAGES).scalars()
    for row in connection.execute(_FIGURES):
        yield storage.figure_key(row.tenant, row.job_id, row.page_no, row.attempt, row.number)
    for row in connection.execute(_RESULTS):
        for each in Format:
            yield storage.result_key(row.tenant, row.id, row.result_attempt, each.extension)


def _job_of(key: str) -> str:
    """The job in whose prefix a key lies, in hexadecimal."""
    return key.split("/")[1]
