"""What came of a campaign, as a table for people and as JSON for the next step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.chaos.invariants import Breach, Harm


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The figures of one seed. Times are in seconds."""

    seed: int
    jobs: int  # acknowledged
    pages: int
    faults: dict[str, int]  # that happened, by kind
    missed: int  # that found no victim
    breaches: list[Breach]
    statuses: dict[str, int]
    harmed_pages: dict[str, int]  # that nothing was wrong with and that failed, by error
    repeated_requests: int
    given_up: int  # submissions that were never acknowledged
    twice: int  # submissions that made more than one job, their acknowledgement being lost
    zombie_writes_refused: int  # whose work somebody else had claimed by then
    late_writes_refused: int  # these, and those of cancelled jobs
    claims_lost: int  # that a worker gave up by itself, being told so
    swept: dict[str, int]
    crashes: dict[str, int]  # exceptions that no code expected, by their last line
    engine_deaths: int
    unknown_objects: int
    superseded_objects: int
    deadlocks: int
    latency_p50_s: float
    latency_p99_s: float
    latency_max_s: float
    quiet_recoveries: list[float]  # after kills when nothing else went wrong
    recovery_all_max_s: float  # after all kills
    recoveries: list[dict[str, Any]]  # each of them, with what may explain it
    seconds: float  # the whole campaign

    def harm(self, kind: Harm) -> int:
        """How many rows, objects or answers broke an invariant of that kind."""
        return sum(breach.count for breach in self.breaches if breach.harm is kind)

    @property
    def recovery_max_s(self) -> float:
        """The longest from a kill -9 to the next claim, where nothing else went wrong meanwhile."""
        return max(self.quiet_recoveries, default=0.0)

    def facts(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return {
            "jobs": self.jobs,
            "pages": self.pages,
            "faults": sum(self.faults.values()),
            "lost": self.harm(Harm.LOST),
            "duplicates": self.harm(Harm.DOUBLED),
            "stuck": self.harm(Harm.STUCK),
            "zombie_writes_refused": self.zombie_writes_refused,
            "latency_p50_s": round(self.latency_p50_s, 3),
            "latency_p99_s": round(self.latency_p99_s, 3),
            "recovery_max_s": round(self.recovery_max_s, 3),
            "wrong": self.harm(Harm.WRONG),
            "details": asdict(self),
        }

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Outcome:
        """The outcome that `facts` tells of."""
        details = facts["details"]
        details["breaches"] = [
            Breach(each["says"], Harm(each["harm"]), each["count"], tuple(each["examples"]))
            for each in details["breaches"]
        ]
        return cls(**details)


def total(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The facts of several seeds as one: sums, and the worst of each time; p50 is the median's."""
    each = [outcome.facts() for outcome in outcomes]
    if len(each) == 1:
        return each[0]
    summed = (
        "jobs",
        "pages",
        "faults",
        "lost",
        "duplicates",
        "stuck",
        "zombie_writes_refused",
        "wrong",
    )
    medians = sorted(one["latency_p50_s"] for one in each)
    return {
        **{name: sum(one[name] for one in each) for name in summed},
        "latency_p50_s": medians[len(medians) // 2],
        "latency_p99_s": max(one["latency_p99_s"] for one in each),
        "recovery_max_s": max(one["recovery_max_s"] for one in each),
        "seeds": [
            one | {"seed": outcome.seed} for one, outcome in zip(each, outcomes, strict=True)
        ],
    }


HEADING = (
    "| seed | jobs | pages | faults | lost | doubled | stuck | wrong | rescued | sent again "
    "| late writes refused | of zombies | p50 s | p99 s | worst recovery s | minutes |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def line(outcome: Outcome) -> str:
    """One seed as a line of a table in markdown."""
    cells = (
        outcome.seed,
        outcome.jobs,
        outcome.pages,
        sum(outcome.faults.values()),
        *(outcome.harm(kind) for kind in Harm),
        outcome.swept.get("rescue", 0),
        outcome.swept.get("resend", 0),
        outcome.late_writes_refused,
        outcome.zombie_writes_refused,
        f"{outcome.latency_p50_s:.1f}",
        f"{outcome.latency_p99_s:.1f}",
        f"{outcome.recovery_max_s:.1f}",
        f"{outcome.seconds / 60:.1f}",
    )
    return f"| {' | '.join(map(str, cells))} |"


def table(outcome: Outcome) -> str:
    """One seed in full."""
    jobs = ", ".join(f"{count} {status}" for status, count in _sorted(outcome.statuses))
    rows: list[tuple[str, object]] = [
        ("jobs acknowledged", f"{outcome.jobs}: {jobs}"),
        ("pages", outcome.pages),
        ("submissions given up", outcome.given_up),
        ("requests sent again", outcome.repeated_requests),
        ("submissions that made several jobs", outcome.twice),
        *((f"fault: {kind}", count) for kind, count in sorted(outcome.faults.items())),
        ("faults that found no victim", outcome.missed),
        *((f"swept: {step}", count) for step, count in sorted(outcome.swept.items())),
        ("engine deaths", outcome.engine_deaths),
        ("late writes refused", outcome.late_writes_refused),
        ("of them, of zombies", outcome.zombie_writes_refused),
        ("claims given up by their holder", outcome.claims_lost),
        ("good pages that failed", sum(outcome.harmed_pages.values())),
        *((f"good page failed: {code}", count) for code, count in _sorted(outcome.harmed_pages)),
        ("objects of no job", outcome.unknown_objects),
        ("objects of superseded attempts", outcome.superseded_objects),
        ("deadlocks", outcome.deadlocks),
        ("job time p50, p99, worst", _times(outcome)),
        ("recoveries while all else was quiet, worst", _recoveries(outcome)),
        ("recovery, worst of all", f"{outcome.recovery_all_max_s:.2f} s"),
        *((f"crash: {what}", count) for what, count in _sorted(outcome.crashes)),
        *((kind.value, outcome.harm(kind)) for kind in Harm),
    ]
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join([*lines, *(f"\nBROKEN: {_told(breach)}" for breach in outcome.breaches)])


def _told(breach: Breach) -> str:
    examples = "".join(f"\n    {example}" for example in breach.examples)
    return f"«{breach.says}» ({breach.harm}, {breach.count} times){examples}"


def _times(outcome: Outcome) -> str:
    return " / ".join(
        f"{seconds:.2f}"
        for seconds in (outcome.latency_p50_s, outcome.latency_p99_s, outcome.latency_max_s)
    )


def _recoveries(outcome: Outcome) -> str:
    return f"{len(outcome.quiet_recoveries)}, {outcome.recovery_max_s:.2f} s"


def _sorted(counts: dict[str, int]) -> list[tuple[str, int]]:
    return Counter(counts).most_common()
