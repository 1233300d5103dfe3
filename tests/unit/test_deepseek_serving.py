"""What the benchmark of the engine counts while pages are read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.deepseek import pages, serving
from tests.conftest import Tiny
from worker.engine.deepseek import checkpoint, machine


def test_pages_that_wait_for_a_row_are_in_flight_but_in_no_step(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "CPU", replace(machine.CPU, rows=2, ahead=3))
    engine = machine.engine(checkpoint.inspect(tiny(1)))

    run = serving.read(engine, pages.alike("tiny", 8, 40), at_once=7)

    found = run.facts()
    assert (found["pages"], found["failed"]) == (8, 0)
    assert (found["most_in_flight"], found["most_in_one_step"]) == (5, 2)
    assert len(run.in_flight) == len(run.in_step)
