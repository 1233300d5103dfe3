"""For all tests: who runs which of them, and small checkpoints of DeepSeek-OCR."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

from worker.engine.deepseek.config import Version

# Before torch is imported, also by the processes that tests start: many threads on few cores wait
# for each other most of the time.
os.environ["OMP_NUM_THREADS"] = "1"


class Shares(LoadFileScheduling):  # type: ignore[misc]
    """Who runs what: a file stays whole, and so does `acceptance`, whose files share platforms."""

    def _split_scope(self, nodeid: str) -> str:
        folder = nodeid.rpartition("/")[0]
        return folder if folder == "tests/acceptance" else str(super()._split_scope(nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shares:
    """Let the processes of `make test` share like that."""
    return Shares(config, log)


Tiny = Callable[[Version], Path]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The folder of a tiny checkpoint of that version. Nobody writes into it."""
    made: dict[Version, Path] = {}

    def folder(version: Version) -> Path:
        from worker.engine.deepseek import tiny as tiny_module

        if version not in made:
            made[version] = tmp_path_factory.mktemp(f"tiny-{version}")
            tiny_module.write(made[version], version)
        return made[version]

    return folder
