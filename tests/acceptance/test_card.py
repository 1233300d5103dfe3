"""`octavo worker gpu` in a platform: what its workers and engines are killed of costs no page."""

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import card
from tests.acceptance.conftest import SHORT_TIMERS


def test_pages_survive_the_engine_and_the_worker_on_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = {**SHORT_TIMERS, "OCTAVO_FAKE_DELAY_SECONDS": "0.2", "OCTAVO_FAKE_SLOTS": "4"}
    for name, value in timers.items():
        monkeypatch.setenv(name, value)
    asked = Namespace(engine="fake", documents=8, tiny=True, models=tmp_path, at_most=120)

    found = card.measure(asked, tmp_path)

    assert found.broken == []
    assert [struck.what for struck in found.struck] == ["engine", "worker"]
    assert found.ended == {"succeeded": found.pages}
