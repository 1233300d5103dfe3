"""One campaign: a platform of its own, clients that send, faults that happen, and the reckoning."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from benchmarks.chaos import faults
from benchmarks.chaos.documents import FAULTS_OF_ENGINE, submissions
from benchmarks.chaos.faults import Fault
from benchmarks.chaos.injector import Injector
from benchmarks.chaos.load import Clients, Sent
from benchmarks.chaos.outcome import Outcome
from benchmarks.chaos.proxy import Proxy
from benchmarks.chaos.reckoning import reckon
from benchmarks.chaos.recovery import Watch
from deploy.backoff import Restarts
from deploy.local import Platform

LEASE_SECONDS = 4.0
SWEEP_SECONDS = 0.5
DISPATCH_SECONDS = 0.12
"""Four times the setting: so long the dispatcher sleeps at most."""
BOUND_SECONDS = LEASE_SECONDS + SWEEP_SECONDS + DISPATCH_SECONDS + 1
"""In which the work of a killed worker is promised to go on."""
SETTINGS = {
    "OCTAVO_LEASE_SECONDS": str(LEASE_SECONDS),
    "OCTAVO_HEARTBEAT_SECONDS": "1",
    "OCTAVO_SWEEP_SECONDS": str(SWEEP_SECONDS),
    "OCTAVO_RESEND_SECONDS": "3",
    "OCTAVO_STALL_SECONDS": "5",
    "OCTAVO_FAKE_SLOTS": "12",
    # Long enough that a frozen worker holds some pages.
    "OCTAVO_FAKE_DELAY_SECONDS": "0.3",
    "OCTAVO_FAKE_FAULTS": FAULTS_OF_ENGINE,
}
"""Short timers, so that much happens in a short time; the code is the same."""

GATEWAYS, ENGINE_WORKERS = 2, 3
RESTARTS = Restarts(longest_seconds=0.2, loop_deaths=1_000)
"""Who kills for a living takes no death for a crash loop."""

REST_SECONDS = LEASE_SECONDS + SWEEP_SECONDS + 2
"""After which the work of a dead worker must have gone on."""

DEADLY_SECONDS = 30.0
"""A page that hangs its engine does so four times, in ever smaller company, and has to come to it."""

SECONDS_A_JOB = 0.12
"""Two quiet cores keep up with that many jobs."""

QUIET_SECONDS = 45.0
"""Where nothing has moved for so long, nothing will: longer than any lease, rest or resend."""
LOOK_SECONDS = 0.5

_UNFINISHED = text(
    """
    SELECT (SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')
              OR deleted_at IS NOT NULL) AS jobs,
      (SELECT count(*) FROM work WHERE status IN ('queued', 'running')) AS work,
      (SELECT count(*) FROM tombstones WHERE check_at IS NOT NULL) AS tombstones
    """
)


@dataclass(frozen=True)
class Plan:
    """What a campaign is made of."""

    seed: int
    jobs: int
    faults: int

    @property
    def schedule(self) -> list[Fault]:
        """What goes wrong."""
        return faults.schedule(
            self.seed, self.faults, lease_seconds=LEASE_SECONDS, rest_seconds=REST_SECONDS
        )

    @property
    def seconds(self) -> float:
        """For how long documents are sent: until the last fault, or as long as they take."""
        breaking = faults.seconds_of(self.schedule, rest_seconds=REST_SECONDS)
        return max(breaking, SECONDS_A_JOB * self.jobs)

    @property
    def deadly_jobs(self) -> int:
        """So many may have a page that kills its engine: it would be a fault more among quiet ones."""
        quiet_from = min((each.at for each in self.schedule if each.is_quiet), default=self.seconds)
        return int(self.jobs * max(0.0, quiet_from - DEADLY_SECONDS) / self.seconds)


def run(plan: Plan, say: Callable[[str], None]) -> Outcome:
    """What came of the campaign; its directory stays where something was not right."""
    directory = Path(tempfile.mkdtemp(prefix=f"octavo-chaos-{plan.seed}-"))
    try:
        outcome = _run_in(directory, plan, say)
    except BaseException:
        say(f"logs and rows are in {directory}")
        raise
    is_late = outcome.recovery_max_s > BOUND_SECONDS
    if outcome.breaches or is_late or "OCTAVO_CHAOS_STAYS" in os.environ:
        say(f"logs and rows are in {directory}")
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return outcome


@contextmanager
def platform_of(
    directory: Path, settings: dict[str, str], say: Callable[[str], None]
) -> Iterator[tuple[Platform, Proxy]]:
    """A platform whose processes reach their store through a proxy."""

    def upstream() -> tuple[str, int]:
        where = urlsplit(platform.servers.store)
        assert where.hostname is not None
        assert where.port is not None
        return where.hostname, where.port

    with Proxy(upstream) as proxy:
        platform = Platform(
            directory,
            engine="fake",
            engine_workers=ENGINE_WORKERS,
            gateways=GATEWAYS,
            settings={**settings, "OCTAVO_STORE_URL": proxy.url},
            restarts=RESTARTS,
            tell=say,
        )
        with platform:
            yield platform, proxy


def _run_in(directory: Path, plan: Plan, say: Callable[[str], None]) -> Outcome:
    began = time.monotonic()
    with platform_of(directory, SETTINGS, lambda _: None) as (platform, proxy):
        watch = Watch(platform.servers.database)
        watch.start()
        say(f"seed {plan.seed}: {plan.jobs} jobs, {plan.faults} faults, {plan.seconds:.0f} s")
        injector = Injector(platform, proxy, on_kill=watch.killed)
        sent = _break_while_sending(platform, injector, plan)
        say(f"{len(sent.acknowledged)} jobs acknowledged, {len(injector.happened)} faults happened")
        at_rest = await_rest(platform, say)
        watch.stop()
        say(f"everything is {'over' if at_rest else 'STUCK'}; reckoning")
        return reckon(
            platform,
            seed=plan.seed,
            injector=injector,
            watch=watch,
            sent=sent,
            seconds=time.monotonic() - began,
        )


def _break_while_sending(platform: Platform, injector: Injector, plan: Plan) -> Sent:
    breaking = threading.Thread(target=injector.run, args=(plan.schedule,), name="faults")
    breaking.start()
    try:
        sent = asyncio.run(_send(platform, plan))
    except BaseException:
        injector.stop()
        raise
    finally:
        breaking.join()
    return sent


async def _send(platform: Platform, plan: Plan) -> Sent:
    clients = Clients(platform.urls, platform.api_key)
    documents = submissions(plan.seed, plan.jobs, deadly=plan.deadly_jobs)
    await clients.send(documents, over_seconds=plan.seconds)
    return clients.sent


def await_rest(platform: Platform, say: Callable[[str], None]) -> bool:
    """Whether everything ended; False where nothing has moved for long, and something is left."""
    engine = create_engine(platform.servers.database, isolation_level="AUTOCOMMIT")
    moved_at, before = time.monotonic(), None
    while time.monotonic() - moved_at < QUIET_SECONDS:
        try:
            with engine.connect() as connection:
                now = connection.execute(_UNFINISHED).one()
        except DBAPIError:
            continue
        if not any(now):
            return True
        if now != before:
            moved_at, before = time.monotonic(), now
        time.sleep(LOOK_SECONDS)
    say(f"nothing moves any more; left are {before}")
    return False
