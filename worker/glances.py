"""What the readers of held pages see of them: one thread that asks who watches, and tells those.

A worker without readers asks once a second and writes nothing. What goes wrong here is logged, and
costs no page anything.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

import structlog

from shared import glances
from shared.db import transaction
from shared.errors import DependencyUnavailable
from shared.glances import Told
from shared.work import Claim
from worker.heartbeat import Heartbeat, Held

ROUND_SECONDS = 1.0

log = structlog.get_logger()


class Glances:
    """The thread that tells what is read of the pages in the hands of a heartbeat."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self._heartbeat = heartbeat
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="glances", daemon=True)

    def start(self) -> None:
        """Begin to go round."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(ROUND_SECONDS):
            try:
                self.round()
            except DependencyUnavailable as error:
                log.warning("glances_failed", detail=error.detail)
            except Exception:
                log.exception("glances_crashed")

    def round(self) -> None:
        """Ask which of the held pages are watched, and tell those. Raises DatabaseUnavailable."""
        held = {one.claim.id: one for one in self._heartbeat.held()}
        if not held:
            return
        with transaction() as session:
            watched = glances.watched(session, [one.claim for one in held.values()])
            if news := [*_news(held, watched)]:
                glances.tell(session, news)


def _news(held: Mapping[int, Held], watched: Mapping[int, Told]) -> Iterator[tuple[Claim, str]]:
    """The pages of whose text there is more than was told, with that text."""
    for work_id, told in watched.items():
        claim, text = held[work_id].claim, held[work_id].glance()
        if text and told != Told(claim.attempt, len(text.encode())):
            yield claim, text
