"""The dispatcher: the only sender of messages. Due work goes from Postgres to the broker.

A window ahead of the live workers, no more: who is next is decided as late as possible, a flushed
broker costs little, and cancelled work was never sent. Work is marked as sent, committed, and then
published: a crash in between costs the time after which the sweeper lets it be sent again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial

import structlog
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.orm import Session

from shared import crash_point, turns, work, workers
from shared.advisory import AdvisoryLock
from shared.config import settings
from shared.db import Sole, forgettable_statements, sole_holder, transaction
from shared.errors import DependencyUnavailable
from shared.served import Served
from shared.status import Lane
from shared.turns import Demand
from worker.app import app, queues
from worker.pulse import Pulse

WINDOW = 1.25
"""Messages ahead of the live workers, as a multiple of their slots."""
BATCH_SHARE = 0.2
"""What of each window the batch lane keeps while it has due work."""
SLOTS_READ_EVERY_SECONDS = 0.5
IDLE_SECONDS = 0.25
"""Nobody tells of work that comes due by itself, and what is told may be lost with a connection."""
BACK_OFF_SECONDS = 0.5

log = structlog.get_logger()


class Dispatcher:
    """Rounds of sending, by one dispatcher at a time; a second one stands by."""

    def __init__(self) -> None:
        self._queues = frozenset(queues())  # what a worker of another version takes is not ours
        self._slots: dict[str, int] = {}
        self._served: defaultdict[str, Served] = defaultdict(Served)  # of each queue
        self._slots_read_at = -math.inf
        self._full = set[str]()  # queues of which, after the last round, some work waits for room
        self._pulse = Pulse("dispatcher")

    def run(self, stop: threading.Event) -> None:
        """Send due work until told to stop."""
        while not stop.is_set():
            try:
                with sole_holder(AdvisoryLock.DISPATCH, stop, self._pulse.stands_by) as sole:
                    self._rounds(stop, sole)
            except DependencyUnavailable as error:
                log.warning("dispatch_paused", detail=error.detail)
                self._pulse.no_round()
                stop.wait(BACK_OFF_SECONDS)
        self._pulse.stop()

    def _rounds(self, stop: threading.Event, sole: Sole) -> None:
        """Rounds as work is told of, and with pauses that grow while none of it can be sent."""
        sole.listen(work.BELL)
        shortest = pause = settings().dispatch_seconds
        while not stop.is_set():
            if self._slots_are_old():
                sole.check()
                self.read_slots()
            began = time.monotonic()
            has_sent = self.round() > 0
            self._pulse.full_round()
            pause = shortest if has_sent else min(2 * pause, 4 * shortest)
            heeding = self._slots.keys() - self._full  # no word of work makes room
            sole.wait(pause if self._full else IDLE_SECONDS, heeding)
            # A few messages at a time cost as much as many.
            stop.wait(max(0.0, began + shortest - time.monotonic()))

    def round(self) -> int:
        """Send what is due and fits into the windows; how much."""
        marked = self.mark()
        if marked:
            crash_point.reach("dispatch", "marked")
            _publish(marked)
        return len(marked)

    def mark(self) -> list[tuple[str, int]]:
        """Mark as sent what is due and fits into the windows: queues and ids, to be published."""
        if not self._slots:
            return []
        with transaction(alone=True) as session:
            demand = turns.demand(session, list(self._slots))
        due = {queue: demand[queue] for queue in sorted(demand) if _is_due(demand[queue])}
        room = {queue: self._room(queue, due[queue]) for queue in due}
        marked: dict[str, list[int]] = {}
        if any(room.values()):
            # What a crash of Postgres forgets costs a second message, of which one is answered.
            with forgettable_statements() as session:
                marked = {
                    queue: self._fill(session, queue, due[queue], room[queue]) for queue in due
                }
        self._full = {queue for queue in due if len(marked.get(queue, ())) == room[queue]}
        return [(queue, work_id) for queue, ids in marked.items() for work_id in ids]

    def _room(self, queue: str, demand: dict[Lane, Demand]) -> int:
        """How much of a queue can be sent now."""
        return max(0, self._window(queue) - sum(lane.busy for lane in demand.values()))

    def _window(self, queue: str) -> int:
        return math.ceil(self._slots[queue] * WINDOW)

    def _fill(
        self, session: Session, queue: str, demand: dict[Lane, Demand], room: int
    ) -> list[int]:
        reserved = math.ceil(self._window(queue) * BATCH_SHARE) - demand[Lane.BATCH].busy
        lanes = {lane for lane in demand if demand[lane].is_due}
        served = self._served[queue]
        pick = partial(turns.pick, session, queue, served=served)
        return _pick(pick, room, lanes, reserved=max(0, min(room, reserved)))

    def _slots_are_old(self) -> bool:
        return time.monotonic() - self._slots_read_at > SLOTS_READ_EVERY_SECONDS

    def read_slots(self) -> None:
        """Look how much the live workers can hold; `run` does twice a second."""
        with transaction(alone=True) as session:
            live = workers.live_slots(session)
        self._slots = {queue: live[queue] for queue in live if queue in self._queues}
        self._slots_read_at = time.monotonic()


def _is_due(demand: dict[Lane, Demand]) -> bool:
    return any(lane.is_due for lane in demand.values())


def _pick(
    pick: Callable[[Lane, int], list[int]], room: int, lanes: set[Lane], *, reserved: int
) -> list[int]:
    """Ids for the room there is: the batch lane's share of the window, interactive, then batch."""
    has_share = reserved and Lane.BATCH in lanes
    ids = pick(Lane.BATCH, reserved) if has_share else []
    if Lane.INTERACTIVE in lanes:
        ids += pick(Lane.INTERACTIVE, room - len(ids))
    if Lane.BATCH in lanes and len(ids) < room:
        ids += pick(Lane.BATCH, room - len(ids))
    return ids


def _publish(picked: list[tuple[str, int]]) -> None:
    """Send a message for each; those that the broker did not take were never sent."""
    sent = 0
    try:
        for queue, work_id in picked:
            app.send_task(queue.partition(".")[0], args=[work_id], queue=queue, ignore_result=True)
            sent += 1
            crash_point.reach("dispatch", "sent")
    except (OperationalError, RedisError, OSError) as error:
        with transaction() as session:
            turns.unsend(session, [work_id for _, work_id in picked[sent:]])
        message = f"The broker took {sent} of {len(picked)} messages."
        raise DependencyUnavailable(message) from error
