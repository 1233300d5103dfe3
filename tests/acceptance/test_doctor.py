"""`octavo doctor`, as an operator runs it on a platform that is up."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from deploy.local import Platform

OCTAVO = str(Path(sys.executable).with_name("octavo"))


def doctor(*arguments: str, **settings: str) -> tuple[int, str]:
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [OCTAVO, "doctor", *arguments],
        env=environment | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def failures(said: str) -> dict[str, dict[str, Any]]:
    return {one["part"]: one for one in json.loads(said) if one["level"] == "failure"}


def test_a_platform_that_is_up_is_well(fake_platform: Platform) -> None:
    status, said = doctor("--dir", str(fake_platform.directory), "--json")

    # What the sandbox has is this host's and this user's.
    others = [one for one in json.loads(said) if one["part"] != "sandbox"]
    assert status == 0, said
    assert others
    assert all(one["level"] == "well" for one in others), said


def test_a_server_that_is_away_is_named_with_a_mend(fake_platform: Platform) -> None:
    with fake_platform.outage("valkey"):
        status, said = doctor("--dir", str(fake_platform.directory), "--json")

    assert status == 1
    found = failures(said)
    assert found.keys() == {"broker"}
    assert "start Valkey" in found["broker"]["mend"]


def test_no_secret_is_shown(fake_platform: Platform) -> None:
    secrets = json.loads((fake_platform.directory / "services.json").read_text())
    with fake_platform.outage("postgres"):
        _, said = doctor("--dir", str(fake_platform.directory))

    secrets |= secrets.pop("role_passwords")
    words = [word for name, word in secrets.items() if re.search("password|secret|octavo_", name)]
    assert len(words) == 8
    assert not [word for word in words if word in said]


def test_settings_that_are_missing_are_named() -> None:
    status, said = doctor("--json")

    assert status == 1
    assert "OCTAVO_DATABASE_URL" in failures(said)["settings"]["said"]


def test_the_environment_is_looked_at_where_no_folder_is_named(fake_platform: Platform) -> None:
    status, said = doctor("--json", **fake_platform.environment | {"OCTAVO_ENGINES": "rapid"})

    assert status == 1
    assert failures(said)["workers"]["said"] == "nobody takes recognise.rapid"
