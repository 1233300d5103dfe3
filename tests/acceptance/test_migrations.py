"""A migration is applied while the platform works, with somebody in its way."""

import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Self

import psycopg2

from benchmarks.load import Load, failures, rows, seconds_until_done
from deploy.local import Platform

IN_THE_WAY_SECONDS = 6
LATE_IN_AN_ATTEMPT_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 4

WAITING = """
SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'
"""

REVISIONS = {
    "9001": """
        op.add_column("work", sa.Column("sample", sa.Text(), server_default="", nullable=False))
        op.add_column("jobs", sa.Column("sample", sa.Text()))
    """,
    "9002": """
        with op.get_context().autocommit_block():
            op.create_index(
                "work_sample", "work", ["sample"], postgresql_concurrently=True, if_not_exists=True
            )
    """,
}

UPGRADE = """
import sys
from alembic import command
from migrations.run import configuration
config = configuration()
config.set_main_option("path_separator", "newline")
config.set_main_option("version_locations", "\\n".join(sys.argv[1:]))
command.upgrade(config, "head")
"""


def write_revisions(folder: Path, after: str) -> None:
    for revision, body in REVISIONS.items():
        lines = [
            "import sqlalchemy as sa",
            "from alembic import op",
            f"revision, down_revision = {revision!r}, {after!r}",
            "def upgrade():",
            textwrap.indent(textwrap.dedent(body).strip(), "    "),
        ]
        (folder / f"{revision}.py").write_text("\n".join(lines) + "\n")
        after = revision


def stand_in_the_way(platform: Platform, stands: threading.Event) -> None:
    """Read both tables, and end in the midst of an attempt to alter them, after some in vain.

    Whoever then has one table, and waited for the other behind that attempt, must not be the one who
    loses.
    """
    url = platform.environment["OCTAVO_DATABASE_URL"].replace("+psycopg2", "")
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT (SELECT count(*) FROM work), (SELECT count(*) FROM jobs)")
        stands.set()
        await_attempt(platform)
        time.sleep(IN_THE_WAY_SECONDS)
        await_attempt(platform)
        time.sleep(LATE_IN_AN_ATTEMPT_SECONDS)


def await_attempt(platform: Platform) -> None:
    """Return once somebody begins to wait for a table of which it wants to be the only user.

    Raises TimeoutError where nobody does.
    """
    deadline = time.monotonic() + 60
    for waits in (False, True):
        while (rows(platform, WAITING) != [(0,)]) is not waits:
            if time.monotonic() > deadline:
                raise TimeoutError("nobody waits for a table")
            time.sleep(0.02)


class Prober:
    """Does nothing to the table of work, again and again; what the dispatcher does waits as long."""

    def __init__(self, platform: Platform) -> None:
        self.longest = 0.0
        self._url = platform.environment["OCTAVO_DATABASE_URL"].replace("+psycopg2", "")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(psycopg2.connect(self._url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                while not self._ended.wait(0.02):
                    began = time.monotonic()
                    cursor.execute("UPDATE work SET sent_at = now() WHERE id = -1")
                    self.longest = max(self.longest, time.monotonic() - began)


def run_beside(platform: Platform, *command: str) -> subprocess.CompletedProcess[str]:
    environment = platform.environment
    environment.pop("OCTAVO_ROLE_PASSWORDS", None)  # those of another platform's roles
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_command_runs_beside_the_platform_as_often_as_one_likes(pair: Platform) -> None:
    for _ in range(2):
        done = run_beside(pair, "-m", "deploy.processes", "migrate")
        assert (done.returncode, done.stdout) == (0, "ready\n"), done.stderr


def test_a_migration_under_load_stops_nobody(pair: Platform, tmp_path: Path) -> None:
    ours = Path(__file__).parents[2] / "migrations/versions"
    [(now,)] = rows(pair, "SELECT version_num FROM alembic_version")
    write_revisions(tmp_path, now)
    before = failures(pair)

    with Load(pair, per_second=10) as load, Prober(pair) as prober:
        time.sleep(1)
        stands = threading.Event()
        obstacle = ThreadPoolExecutor(1).submit(stand_in_the_way, pair, stands)
        assert stands.wait(30)
        done = run_beside(pair, "-c", UPGRADE, str(ours), str(tmp_path))
        obstacle.result(timeout=120)
        time.sleep(1)

    assert done.returncode == 0, done.stderr
    assert rows(pair, "SELECT version_num FROM alembic_version") == [("9002",)]
    assert set(load.statuses()) == {202}, {answer.problem for answer in load.answers}
    assert prober.longest <= LONGEST_PAUSE_SECONDS
    seconds_until_done(pair, at_most=60)
    assert failures(pair) == before
