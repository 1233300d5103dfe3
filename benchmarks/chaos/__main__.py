"""The command: one campaign a seed, each on a platform of its own.

make chaos                                  # or with SEED, JOBS, FAULTS, SEEDS, JSON
make chaos SEEDS=20 KEEP=var/chaos          # seeds that are kept there are not run again
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.chaos import campaign, outcome
from benchmarks.chaos.campaign import Plan
from benchmarks.chaos.outcome import Outcome


def main() -> None:
    """Run, print, write what was asked for, and end with 1 where an invariant is broken."""
    arguments = _arguments()
    outcomes = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        plan = Plan(seed, arguments.jobs, arguments.faults)
        outcomes.append(_kept_or_run(plan, arguments.keep))
    print(outcome.HEADING, *map(outcome.line, outcomes), sep="\n")
    if arguments.json:
        arguments.json.write_text(json.dumps(outcome.total(outcomes), indent=2) + "\n")
    sys.exit(1 if any(each.breaches for each in outcomes) else 0)


def _kept_or_run(plan: Plan, folder: Path | None) -> Outcome:
    file = folder and folder / f"{plan.jobs}-jobs-{plan.faults}-faults-seed-{plan.seed}.json"
    if file and file.exists():
        return Outcome.of(json.loads(file.read_text()))
    done = campaign.run(plan, _say)
    print(outcome.table(done), flush=True)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(done.facts(), indent=2) + "\n")
    return done


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Break the platform at work, and count.")
    parser.add_argument("--seed", type=int, default=1, help="of documents and faults")
    parser.add_argument("--jobs", type=int, default=1_000)
    parser.add_argument("--faults", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=1, help="so many, one after the other")
    parser.add_argument("--keep", type=Path, help="a folder for what each seed came to")
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
