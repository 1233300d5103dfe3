"""What an operator is told of settings that are not right."""

import os
import subprocess
import sys
from pathlib import Path

OCTAVO = str(Path(sys.executable).with_name("octavo"))
GIVEN = {
    "OCTAVO_DATABASE_URL": "postgresql+psycopg2://127.0.0.1:1/octavo",
    "OCTAVO_STORE_URL": "http://127.0.0.1:1",
    "OCTAVO_STORE_ACCESS_KEY": "access",
    "OCTAVO_STORE_SECRET_KEY": "secret",
    "OCTAVO_SECRET_KEY": "0" * 32,
}


def octavo(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [OCTAVO, *arguments],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_what_must_be_given_is_asked_for_by_name() -> None:
    done = octavo("sweeper")

    assert done.returncode == 1
    assert "OCTAVO_DATABASE_URL: Field required" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_wrong_is_named_and_never_shown() -> None:
    done = octavo("dispatcher", **GIVEN | {"OCTAVO_SECRET_KEY": "short-secret"})

    assert "OCTAVO_SECRET_KEY" in done.stderr
    assert "short-secret" not in done.stderr


def test_a_database_that_does_not_answer_is_an_error_in_a_line() -> None:
    done = octavo("keys", "list", **GIVEN)

    assert done.returncode == 1
    assert done.stderr.strip() == "Error: The database does not answer."


def test_an_engine_that_does_not_exist_is_named() -> None:
    done = octavo("worker", "engine", "--engine", "abacus", **GIVEN)

    assert done.returncode == 1
    assert "There is no engine abacus" in done.stderr
    assert "Traceback" not in done.stderr
