"""A small campaign: faults of many kinds while documents are read, and nothing is lost."""

import pytest

from benchmarks.chaos import campaign, outcome
from benchmarks.chaos.campaign import Plan
from benchmarks.chaos.invariants import Harm

SEED, JOBS, FAULTS = 7, 100, 20


@pytest.mark.timeout(400)
def test_nothing_is_lost_doubled_or_stuck_whatever_is_killed_frozen_or_away() -> None:
    found = campaign.run(Plan(SEED, JOBS, FAULTS), print)

    assert found.breaches == [], outcome.table(found)
    assert found.jobs + found.given_up == JOBS
    assert sum(found.faults.values()) >= FAULTS * 0.9
    assert sum(found.harm(kind) for kind in Harm) == 0
