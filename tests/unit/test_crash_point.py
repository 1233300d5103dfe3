"""A crash point kills once, where a test says so, and nowhere else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from shared import crash_point

PROGRAM = """
from shared.crash_point import reach
reach("upload", "part")
reach("dispatch", "marked")
"""


def run(folder: Path | None) -> int:
    environment = {name: v for name, v in os.environ.items() if name != "OCTAVO_CRASH_POINTS"}
    if folder is not None:
        environment["OCTAVO_CRASH_POINTS"] = str(folder)
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, check=False).returncode


def test_the_process_that_reaches_a_named_point_is_killed_and_the_next_one_goes_on(
    tmp_path: Path,
) -> None:
    (tmp_path / "dispatch-marked").touch()

    assert run(tmp_path) == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []
    assert run(tmp_path) == 0


def test_without_a_folder_nothing_happens(tmp_path: Path) -> None:
    (tmp_path / "dispatch-marked").touch()

    assert run(None) == 0
    crash_point.reach("no", "point")  # is not even looked up


def test_a_point_that_nobody_listed_is_an_error(tmp_path: Path) -> None:
    program = PROGRAM.replace("marked", "mraked")
    environment = {**os.environ, "OCTAVO_CRASH_POINTS": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=False, capture_output=True
    )

    assert b"AssertionError" in done.stderr
