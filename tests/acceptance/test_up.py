"""What an operator sees of the platform as a whole."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from client.sdk import Octavo
from deploy.embedded.services import Services
from deploy.local import Platform
from tests import documents
from tests.acceptance.conftest import SHORT_TIMERS

OCTAVO = str(Path(sys.executable).with_name("octavo"))


def test_a_second_start_finds_its_data_again(tmp_path: Path) -> None:
    with Platform(tmp_path, engine="fake", settings=SHORT_TIMERS) as platform:
        key = platform.api_key
        with Octavo(platform.url, key) as octavo:
            job = octavo.submit(io.BytesIO(documents.pdf(pages=2)), name="a.pdf")
            before = octavo.wait(job.id, timeout=60)
            text = octavo.result(job.id, "text")

    with Platform(tmp_path, engine="fake", settings=SHORT_TIMERS) as platform:
        assert platform.api_key == key
        with Octavo(platform.url, key) as octavo:
            assert octavo.job(job.id).finished_at == before.finished_at
            assert octavo.result(job.id, "text") == text
            again = octavo.submit(io.BytesIO(documents.pdf(pages=1)), name="b.pdf")
            assert octavo.wait(again.id, timeout=60).status == "succeeded"


def test_a_folder_of_a_version_without_roles_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCTAVO_ROLE_PASSWORDS", "{}")  # an operator's; no process is to have it
    settings_file = tmp_path / "services.json"
    with Services(tmp_path) as services:
        upgrade = "from migrations import run; run.upgrade('0001')"
        older = [sys.executable, "-c", upgrade]
        subprocess.run(older, env=os.environ | services.environment(), check=True, timeout=60)
    kept = json.loads(settings_file.read_text())
    del kept["role_passwords"]
    settings_file.write_text(json.dumps(kept))

    with (
        Platform(tmp_path, engine="fake", settings=SHORT_TIMERS) as platform,
        Octavo(platform.url, platform.api_key) as octavo,
    ):
        job = octavo.submit(io.BytesIO(documents.pdf(pages=1)), name="a.pdf")
        assert octavo.wait(job.id, timeout=60).status == "succeeded"
        assert platform.environment_of("gateway")["OCTAVO_DATABASE_URL"].startswith(
            "postgresql+psycopg2://octavo_gateway:"
        )
        assert "OCTAVO_ROLE_PASSWORDS" not in platform.environment_of("gateway")


def test_the_command_line_submits_waits_and_writes(fake_platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("one.pdf", "two.pdf"):
        (tmp_path / "in" / name).write_bytes(documents.pdf(pages=2))

    done = subprocess.run(
        [OCTAVO, "submit", "--wait", "-o", "out", "--format", "txt", "in/one.pdf", "in/two.pdf"],
        cwd=tmp_path,
        env={
            "OCTAVO_URL": fake_platform.url,
            "OCTAVO_API_KEY": fake_platform.api_key,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0, done.stderr
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["one.txt", "two.txt"]
    assert (tmp_path / "out" / "one.txt").read_text().count("\f") == 1
