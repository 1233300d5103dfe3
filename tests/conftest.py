"""For all tests: who runs which of them, and small checkpoints of DeepSeek-OCR."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.engine.deepseek.config import Version

# Before torch is imported, also by the processes that tests start: many threads on few cores wait
# for each other most of the time.
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Share the tests by file; those of `acceptance` stay in one process, as they share platforms."""
    for item in items:
        whole = item.path.parent.name == "acceptance"
        item.add_marker(pytest.mark.xdist_group("acceptance" if whole else item.path.stem))


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
