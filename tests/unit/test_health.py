"""What a process writes of its health, and what `octavo health` makes of it."""

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from deploy.health import command
from shared import health
from shared.health import Health, HealthFile


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "health"


def ask(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(command, arguments)
    return done.exit_code, done.output


def test_what_is_written_is_read(file: Path) -> None:
    HealthFile(str(file)).write(Health(unready=["it waits"]))

    assert health.read(file) == Health([], ["it waits"])


def test_who_does_not_say_is_dead(file: Path) -> None:
    assert not health.read(file).is_live


def test_who_has_not_said_anything_for_long_is_dead(file: Path) -> None:
    HealthFile(str(file)).write(Health())
    old = time.time() - 60
    os.utime(file, (old, old))

    assert "60 s" in health.read(file).dead[0]


def test_the_command_ends_with_one_where_a_process_is_dead(file: Path) -> None:
    HealthFile(str(file)).write(Health())
    assert ask("--file", str(file)) == (0, "well\n")

    HealthFile(str(file)).write(Health(dead=["its heart stands still"]))
    assert ask("--file", str(file)) == (1, "its heart stands still\n")


def test_a_process_that_waits_lives_and_is_not_ready(file: Path) -> None:
    HealthFile(str(file)).write(Health(unready=["it waits"]))

    assert ask("--file", str(file)) == (0, "well\n")
    assert ask("--file", str(file), "--ready") == (1, "it waits\n")


def test_a_gateway_that_is_not_there_is_dead() -> None:
    status, said = ask("--url", "http://127.0.0.1:9")

    assert status == 1
    assert "does not answer" in said


def test_the_command_asks_which_process() -> None:
    status, said = ask()

    assert status == 2
    assert "--url" in said
