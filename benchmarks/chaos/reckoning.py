"""What a campaign came to, once everything is at rest: rows, objects, answers and logs compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict

import httpx
from sqlalchemy import create_engine, text

from benchmarks.chaos import invariants, objects, results
from benchmarks.chaos.injector import Injector
from benchmarks.chaos.invariants import INVARIANTS, ONE_JOB_A_KEY, Breach, Harm
from benchmarks.chaos.journal import Journal
from benchmarks.chaos.load import Sent
from benchmarks.chaos.objects import Objects
from benchmarks.chaos.outcome import Outcome
from benchmarks.chaos.recovery import Watch
from benchmarks.chaos.results import Found
from client.sdk import Octavo
from deploy.local import Platform

_LATENCIES = text(
    """
    SELECT extract(epoch FROM finished_at - created_at)::float8 AS seconds FROM jobs
    WHERE status IN ('succeeded', 'partially_succeeded') ORDER BY seconds
    """
)


def reckon(
    platform: Platform,
    *,
    seed: int,
    injector: Injector,
    watch: Watch,
    sent: Sent,
    seconds: float,
) -> Outcome:
    """Everything that is to be told of a campaign which took so many seconds."""
    journal = Journal(platform.logs)
    with Octavo(platform.url, platform.api_key) as octavo:
        found = results.fetch(octavo, sent.acknowledged)
    engine = create_engine(platform.servers.database, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        latencies = list(connection.execute(_LATENCIES).scalars())
        kept = objects.compare(connection, objects.stored(platform.environment))
        twice = invariants.breaches(connection, (), [ONE_JOB_A_KEY])
        broken = invariants.breaches(connection, sent.acknowledged, _promised(platform))
        zombies = journal.zombies(connection)
    return Outcome(
        seed=seed,
        jobs=len(sent.acknowledged),
        pages=sum(submission.pages for submission in sent.acknowledged.values()),
        faults=dict(Counter(str(each.fault.kind) for each in injector.happened)),
        missed=len(injector.missed),
        breaches=[*broken, *_beyond_rows(kept, found, sent, watch)],
        statuses=dict(Counter(one.status for one in found)),
        harmed_pages=dict(Counter(code for one in found for code in one.harmed)),
        repeated_requests=sent.repeated,
        given_up=len(sent.given_up),
        twice=sum(breach.count for breach in twice),
        zombie_writes_refused=zombies,
        late_writes_refused=len(journal.late),
        claims_lost=journal.events["claim_lost"],
        swept=dict(journal.swept),
        crashes=dict(journal.crashes),
        engine_deaths=journal.events["engine_died"],
        unknown_objects=len(kept.unknown),
        superseded_objects=len(kept.superseded),
        deadlocks=watch.deadlocks,
        latency_p50_s=_quantile(latencies, 0.5),
        latency_p99_s=_quantile(latencies, 0.99),
        latency_max_s=_quantile(latencies, 1),
        quiet_recoveries=[each.seconds for each in watch.recovered if each.is_quiet],
        recovery_all_max_s=max((each.seconds for each in watch.recovered), default=0.0),
        recoveries=[asdict(each) for each in watch.recovered],
        seconds=seconds,
    )


def _promised(platform: Platform) -> list[invariants.Invariant]:
    """The invariants of this version: it promises one job a key where its API knows the header."""
    schema = httpx.get(f"{platform.url}/openapi.json", timeout=20).raise_for_status()
    return [*INVARIANTS, ONE_JOB_A_KEY] if "Idempotency-Key" in schema.text else [*INVARIANTS]


def _beyond_rows(
    kept: Objects, found: Collection[Found], sent: Sent, watch: Watch
) -> Iterator[Breach]:
    """What is broken and that no row says."""
    wrong = [one.wrong for one in found if one.wrong]
    unexpected = [f"{answer}: {count}" for answer, count in sent.unexpected.items()]
    deadlocks = [f"{watch.deadlocks} in pg_stat_database"] if watch.deadlocks else []
    for says, harm, examples in (
        ("every object that a row names is in the store", Harm.LOST, sorted(kept.missing)),
        ("nothing of a deleted job is left", Harm.WRONG, sorted(kept.of_deleted)),
        ("every result says what its document said", Harm.LOST, wrong),
        ("clients hear of success, or to come again", Harm.WRONG, unexpected),
        ("there is no deadlock", Harm.WRONG, deadlocks),
    ):
        if examples:
            yield Breach(says, harm, len(examples), tuple(examples[: invariants.EXAMPLES]))


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
