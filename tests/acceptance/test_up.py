"""What an operator sees of the platform as a whole."""

import io
import subprocess
import sys
from pathlib import Path

from client.sdk import Octavo
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
