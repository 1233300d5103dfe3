"""What the platform's processes wrote into their logs about the campaign."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

_ID = re.compile(r"\[[0-9a-f-]{36}\]")
"""Of a task, in what Celery says of it."""

_SUPERSEDED = text(
    """
    SELECT count(*) FROM work w
    JOIN unnest(cast(:jobs AS uuid[]), cast(:pages AS int[]), cast(:kinds AS text[]),
                cast(:attempts AS int[])) AS late(job_id, page_no, kind, attempt)
      ON w.job_id = late.job_id AND w.page_no = late.page_no AND w.kind = late.kind
    WHERE w.attempt > late.attempt
    """
)


@dataclass(frozen=True)
class Late:
    """A write that was refused, since its claim did not hold any more."""

    job_id: UUID
    page_no: int
    kind: str
    attempt: int


class Journal:
    """Counts of events over all logs of a platform, whose processes append when they come back."""

    def __init__(self, logs: Path) -> None:
        self.events: Counter[str] = Counter()
        self.swept: Counter[str] = Counter()
        self.late: list[Late] = []
        self.crashes: Counter[str] = Counter()
        for path in sorted(logs.glob("*.log")):
            for entry in _entries(path):
                self._note(entry)

    def _note(self, entry: dict[str, Any]) -> None:
        event = str(entry.get("event", ""))
        self.events[event] += 1
        if event == "swept":
            self.swept[entry["step"]] += entry["count"]
        elif event == "late_write_refused":
            self.late.append(
                Late(UUID(entry["job_id"]), entry["page"], entry["kind"], entry["attempt"])
            )
        if "exception" in entry:
            error = str(entry["exception"]).rstrip().rpartition("\n")[2]
            what = _ID.sub("", event).partition(":")[0].removesuffix(" raised ")
            self.crashes[f"{entry.get('process')}: {what[:60]}: {error[:120]}"] += 1

    def zombies(self, connection: Connection) -> int:
        """How many of the refused writes came when the work had been claimed anew.

        The others came after a cancellation, and those of deleted jobs cannot be told.
        """
        values = {
            "jobs": [str(each.job_id) for each in self.late],
            "pages": [each.page_no for each in self.late],
            "kinds": [each.kind for each in self.late],
            "attempts": [each.attempt for each in self.late],
        }
        return int(connection.execute(_SUPERSEDED, values).scalar_one())


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are events; a process that was killed may have left half a line."""
    with path.open(errors="replace") as file:
        for line in file:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry
