"""The processes of the platform and the work between them, as the database knows them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import psycopg2
import redis

from deploy.doctor import broker, database
from deploy.doctor.finding import Finding, failure, unknown, warning, well
from shared.config import Settings
from shared.connection import Connection
from shared.status import WorkKind
from shared.work import BROKER_PREFIX, recognise_queue

ROUND_SECONDS = 10
"""Dispatcher and sweeper go round at least this often."""
OLD_SECONDS = 60
WINDOW = 1.25
WINDOWS = 4
PARTS = ("dispatcher", "sweeper", "workers", "versions", "due work", "sent work", "leases", "lists")


@dataclass(frozen=True)
class Process:
    """A row of the workers table."""

    kind: str
    queues: list[str]
    slots: int
    draining: bool
    version: str
    seconds: float  # since it was last seen


def check(settings: Settings) -> Iterator[Finding]:
    """Who lives, and what waits."""
    try:
        with closing(database.connect(settings)) as opened:
            processes = _processes(opened)
            work = _Work(opened, settings)
            found = [
                *_of_processes(settings, processes),
                *work.findings(_slots(settings, processes)),
            ]
    except psycopg2.Error:
        yield from (unknown(part, "the database cannot be asked") for part in PARTS[:-1])
        return
    yield from found
    yield _lists(settings, _slots(settings, processes))


def _processes(opened: Connection) -> list[Process]:
    query = """
        SELECT kind, queues, slots, draining, version,
               extract(epoch FROM now() - last_seen_at)::float8 FROM workers
    """
    return [Process(*row) for row in database.ask(opened, query)]  # type: ignore[arg-type]


def _queues(settings: Settings) -> dict[str, str]:
    """The queues of this deployment, with the command whose worker takes from each."""
    engines = {
        recognise_queue(engine): f"octavo worker engine --engine {engine}"
        for engine in settings.engines
    }
    cpu = "octavo worker cpu"
    return {WorkKind.PREPARE.value: cpu, WorkKind.ASSEMBLE.value: cpu} | engines


def _slots(settings: Settings, processes: list[Process]) -> Counter[str]:
    live = 3 * settings.heartbeat_seconds
    slots: Counter[str] = Counter()
    for process in processes:
        if process.seconds < live and not process.draining:
            slots.update(dict.fromkeys(process.queues, process.slots))
    return slots


def _of_processes(settings: Settings, processes: list[Process]) -> Iterator[Finding]:
    for kind in ("dispatcher", "sweeper"):
        ages = [process.seconds for process in processes if process.kind == kind]
        if ages and min(ages) <= ROUND_SECONDS:
            yield well(kind, f"went round {min(ages):.0f} s ago")
        else:
            said = f"went round {min(ages):.0f} s ago" if ages else "none runs"
            yield failure(kind, said, mend=f"run: octavo {kind}; its log says what keeps it")
    slots = _slots(settings, processes)
    for queue, command in _queues(settings).items():
        if slots[queue]:
            yield well("workers", f"{slots[queue]} slots for {queue}")
        else:
            yield failure("workers", f"nobody takes {queue}", mend=f"run: {command}")
    versions = sorted({process.version for process in processes if process.seconds < OLD_SECONDS})
    if len(versions) > 1:
        mend = "finish the roll-out, or roll it back"
        yield warning("versions", f"side by side: {', '.join(versions)}", mend=mend)
    else:
        yield well("versions", ", ".join(versions) or "nobody runs")


class _Work:
    """What the work table says."""

    def __init__(self, opened: Connection, settings: Settings) -> None:
        self._opened, self._settings = opened, settings

    def findings(self, slots: Counter[str]) -> list[Finding]:
        return [self._due(slots), self._sent(), self._leases()]

    def _due(self, slots: Counter[str]) -> Finding:
        query = """
            SELECT w.queue, extract(epoch FROM now() - min(w.due_at))::int, count(*),
              (SELECT count(*) FROM work b WHERE b.queue = w.queue
                 AND (b.status = 'running' OR (b.status = 'queued' AND b.sent_at IS NOT NULL)))
            FROM work w WHERE w.status = 'queued' AND w.sent_at IS NULL AND w.due_at <= now()
            GROUP BY w.queue
        """
        waiting = database.ask(self._opened, query)
        said = [f"{count} in {queue}, the oldest {age} s" for queue, age, count, _ in waiting]
        stuck = [
            str(queue)
            for queue, age, _, busy in waiting
            if int(str(age)) > OLD_SECONDS and int(str(busy)) < slots[str(queue)]
        ]
        if stuck:
            mend = "look at the dispatcher's log: there are free slots, and nothing is sent"
            return failure("due work", "; ".join(said), mend=mend)
        return well("due work", "; ".join(said) or "none waits")

    def _sent(self) -> Finding:
        query = """
            SELECT count(*), coalesce(max(extract(epoch FROM now() - sent_at)), 0)::int FROM work
            WHERE status = 'queued' AND sent_at IS NOT NULL
        """
        [[count, age]] = database.ask(self._opened, query)
        said = f"{count} not claimed yet, the oldest {age} s" if count else "all was claimed"
        if int(str(age)) > 2 * self._settings.resend_seconds + ROUND_SECONDS:
            mend = "look at the sweeper's log: it should have let them be sent again"
            return failure("sent work", said, mend=mend)
        return well("sent work", said)

    def _leases(self) -> Finding:
        query = """
            SELECT count(*), coalesce(max(extract(epoch FROM now() - lease_until)), 0)::int
            FROM work WHERE status = 'running' AND lease_until < now()
        """
        [[count, age]] = database.ask(self._opened, query)
        grace = 2 * self._settings.heartbeat_seconds + self._settings.sweep_seconds + ROUND_SECONDS
        if int(str(age)) > grace:
            mend = "look at the sweeper's log: it should have rescued them"
            return failure("leases", f"{count} have run out, one {age} s ago", mend=mend)
        return well("leases", f"{count} have just run out" if count else "all hold")


def _lists(settings: Settings, slots: Counter[str]) -> Finding:
    try:
        with broker.connect(settings) as opened:
            lengths = {
                queue: int(str(opened.llen(BROKER_PREFIX + queue))) for queue in _queues(settings)
            }
    except (redis.RedisError, ValueError):
        return unknown("lists", "the broker cannot be asked")
    said = ", ".join(f"{length} in {queue}" for queue, length in lengths.items() if length)
    long = [
        queue
        for queue, length in lengths.items()
        if length > WINDOWS * max(1, math.ceil(WINDOW * slots[queue]))
    ]
    if long:
        mend = "look at the logs of the workers: they do not take what is sent"
        return failure("lists", said, mend=mend)
    return well("lists", said or "no message waits")
