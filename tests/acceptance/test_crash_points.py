"""kill -9 at every point between two effects that do not happen together, several times each.

One campaign, in which every process dies again and again while documents go through; afterwards
every submission has exactly one job with exactly one result, and the store holds nothing else.
OCTAVO_CRASH_KILLS says how many deaths a point has; `make crashes` asks for twenty.
"""

import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pikepdf
import psycopg2
import pytest

from benchmarks import store
from deploy.embedded import ports
from deploy.embedded.services import Services
from shared import storage
from shared.crash_point import POINTS
from tests import documents

KILLS = int(os.environ.get("OCTAVO_CRASH_KILLS", "5"))

PAGES = 3
AT_ONCE = 30
GAP_SECONDS = 0.2  # in which something comes through
ORPHAN_SECONDS = 15
PATIENCE_SECONDS = 300

SETTINGS = {
    "OCTAVO_ENGINES": "fake",
    "OCTAVO_LEASE_SECONDS": "1.5",
    "OCTAVO_HEARTBEAT_SECONDS": "0.4",
    "OCTAVO_SWEEP_SECONDS": "0.25",
    "OCTAVO_RESEND_SECONDS": "1.5",
    "OCTAVO_MAX_FAILURES": "1000",  # a page may be hit more often here than any has to bear
    "OCTAVO_IDEMPOTENCY_LEASE_SECONDS": "1",  # so long a dead gateway keeps its client waiting
    "OCTAVO_ORPHAN_HOURS": str(ORPHAN_SECONDS / 3600),
    "OCTAVO_FAKE_SLOTS": "4",
}

LANES = {
    lane: [point for point in POINTS if point.partition("-")[0] in kinds]
    for lane, kinds in {
        "gateway": {"upload", "submit", "request"},
        "dispatcher": {"dispatch"},
        "prepare": {"prepare"},
        "recognise": {"recognise"},
        "assemble": {"assemble"},
        "sweeper": {"purge", "expire"},
    }.items()
}
"""Points that processes of their own reach: those of one lane one after the other."""

SMALL = documents.pdf(pages=PAGES, size=(200, 200))


def _large() -> bytes:
    """The same pages in more bytes than one part of an upload has."""
    with pikepdf.open(io.BytesIO(SMALL)) as document:
        ballast = random.Random(1).randbytes(storage.PART_BYTES + 1024)  # noqa: S311
        document.Root.Ballast = document.make_stream(ballast)
        document.save(written := io.BytesIO())
    return written.getvalue()


LARGE = _large()


@dataclass
class Campaign:
    """The platform with its crash points, and a client that comes again until it is answered."""

    url: str
    key: str
    database: str
    bucket: Any
    folder: Path
    logs: Path
    struck: Counter[str] = field(default_factory=Counter)
    submitted: dict[str, str] = field(default_factory=dict)  # Idempotency-Key -> job id
    taken_away: dict[str, str] = field(default_factory=dict)  # job id -> deleted, expired
    deaths: list[str] = field(default_factory=list)
    is_over: bool = False

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        self.client = httpx.Client(base_url=self.url, headers=headers, timeout=30)

    # Killing

    def arm(self, point: str) -> None:
        """Have the first process die that reaches the point from now on."""
        (self.folder / point).touch()

    def await_death(self, point: str) -> None:
        """Return when one has."""
        wait_until(lambda: self.is_over or not (self.folder / point).exists(), point)
        self.struck[point] += not self.is_over

    # What the client does

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Ask as often as it takes: who asks cannot know what a gateway did that died."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            try:
                answer = self.client.request(method, path, **request)
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code < 500 and answer.status_code not in {409, 429}:
                return answer
            time.sleep(0.1)
        pytest.fail(f"{method} {path} was not answered")

    def submit(self) -> None:
        """Submit a document once, with as many requests as that takes."""
        body = LARGE if (self.folder / "upload-part").exists() else SMALL
        key = uuid4().hex
        answer = self.ask(
            "POST",
            "/v1/jobs",
            params={"metadata.key": key},
            headers={"Idempotency-Key": key},
            content=body,
        )
        assert answer.status_code == 202, answer.text
        self.submitted[key] = answer.json()["id"]

    def delete(self, job_id: str) -> None:
        """Delete a job; it is gone some time later."""
        self.taken_away[job_id] = "deleted"
        assert self.ask("DELETE", f"/v1/jobs/{job_id}").status_code in {200, 202}

    def expire(self, job_id: str) -> None:
        """Let a job's retention have ended."""
        self.taken_away[job_id] = "expired"
        self.execute("UPDATE jobs SET expires_at = now() WHERE id = %s", UUID(job_id[4:]).hex)

    # What can be seen

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._cursor() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())

    def execute(self, statement: str, *values: object) -> None:
        with self._cursor() as cursor:
            cursor.execute(statement, values)

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with (
            closing(psycopg2.connect(self.database)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            yield cursor

    def unfinished(self) -> int:
        query = "SELECT count(*) FROM jobs WHERE status IN ('queued', 'running')"
        [(count,)] = self.rows(query)
        return int(count)

    def finished(self) -> list[str]:
        """Ids of jobs that succeeded and are still there, as the client knows them."""
        query = "SELECT id FROM jobs WHERE status = 'succeeded' AND deleted_at IS NULL"
        found = [f"job_{UUID(str(job_id)).hex}" for (job_id,) in self.rows(query)]
        known = set(self.submitted.values())
        return [job_id for job_id in found if job_id in known - self.taken_away.keys()]

    def logged(self, process: str, event: str) -> int:
        return (self.logs / f"{process}.log").read_text().count(f'"event": "{event}"')


def wait_until(holds: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: it did not come to pass"
        time.sleep(0.02)


# The campaign


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    """A platform in which every process has died at every of its points."""
    directory = tmp_path_factory.mktemp("crash-points")
    folder, logs = directory / "points", directory / "logs"
    folder.mkdir()
    logs.mkdir()
    with Services(directory / "services") as services, ports.chosen(1) as [port]:
        environment = {
            **os.environ,
            **services.environment(),
            **SETTINGS,
            "OCTAVO_ROLE_PASSWORDS": json.dumps(services.role_passwords),
            "OCTAVO_CRASH_POINTS": str(folder),
            "OCTAVO_PUBLIC_URL": f"http://127.0.0.1:{port}",
        }
        key_file = directory / "api_key"
        first_start = [sys.executable, "-m", "deploy.first_start", str(key_file)]
        subprocess.run(first_start, env=environment, check=True)
        running = Campaign(
            url=f"http://127.0.0.1:{port}",
            key=key_file.read_text(),
            database=services.urls.database.replace("+psycopg2", ""),
            bucket=store.client(environment),
            folder=folder,
            logs=logs,
        )
        with running.client, _forked(environment, port, running):
            _strike(running)
            yield running


class _forked:  # noqa: N801 - a context manager
    """The processes, two workers of each kind, so that one works while the other starts."""

    def __init__(self, environment: dict[str, str], port: int, campaign: Campaign) -> None:
        self._environment, self._campaign = environment, campaign
        worker = ["worker", "cpu", "--slots", "2"]
        engine = ["worker", "engine", "--engine", "fake"]
        self._programs = {
            "gateway": ["gateway", "--port", str(port)],
            "dispatcher": ["dispatcher"],
            "sweeper": ["sweeper"],
            "cpu-1": worker,
            "cpu-2": worker,
            "cpu-3": worker,
            "engine-1": engine,
            "engine-2": engine,
        }

    def __enter__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(self._campaign.logs)],
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(self._programs) + "\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._campaign.deaths.append(line.strip())

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()


def _strike(campaign: Campaign) -> None:
    """Kill at every point, those of each lane side by side with the others'."""
    with ThreadPoolExecutor(len(LANES) + 1) as pool:
        try:
            pool.submit(_hurry, campaign)
            lanes = [pool.submit(_strike_points, campaign, points) for points in LANES.values()]
            while not all(lane.done() for lane in lanes):
                _keep_busy(campaign)
                _take_away(campaign)
            for lane in lanes:
                lane.result()
            wait_until(lambda: not campaign.unfinished(), "all jobs end")
        finally:
            campaign.is_over = True


def _strike_points(campaign: Campaign, points: list[str]) -> None:
    for point in points:
        for _ in range(KILLS):
            campaign.arm(point)
            campaign.await_death(point)
            time.sleep(GAP_SECONDS)


def _hurry(campaign: Campaign) -> None:
    """Let nothing rest: what was hit often would come due again only after a minute."""
    while not campaign.is_over:
        time.sleep(0.25)
        campaign.execute(
            "UPDATE work SET due_at = now() WHERE id IN (SELECT id FROM work"
            " WHERE status = 'queued' AND due_at > now() FOR UPDATE SKIP LOCKED)"
        )


def _keep_busy(campaign: Campaign) -> None:
    """Have documents on their way, for the processes to die of."""
    for _ in range(campaign.unfinished(), AT_ONCE):
        campaign.submit()


def _take_away(campaign: Campaign) -> None:
    """Delete a job, and let one expire."""
    for how, job_id in zip((campaign.delete, campaign.expire), campaign.finished(), strict=False):
        how(job_id)
    time.sleep(0.2)


# What holds afterwards


def test_every_point_was_died_at(campaign: Campaign) -> None:
    assert campaign.struck == dict.fromkeys(POINTS, KILLS)
    killed = [death for death in campaign.deaths if death.endswith(" SIGKILL")]
    assert len(killed) == KILLS * len(POINTS)
    assert campaign.deaths == killed


def test_every_submission_has_exactly_one_job(campaign: Campaign) -> None:
    query = "SELECT metadata ->> 'key', count(*) FROM jobs WHERE deleted_at IS NULL GROUP BY 1"
    found = dict(campaign.rows(query))
    for key, job_id in campaign.submitted.items():
        is_deleted = campaign.taken_away.get(job_id) == "deleted"
        assert found.pop(key, 0) == (0 if is_deleted else 1), key
    assert found == {}


def test_every_job_has_exactly_one_result(campaign: Campaign) -> None:
    jobs = campaign.rows(
        "SELECT id, coalesce(finished_as, status), pages_total, pages_succeeded, pages_failed,"
        " result_attempt, (SELECT attempt FROM work WHERE job_id = jobs.id AND kind = 'assemble')"
        " FROM jobs WHERE deleted_at IS NULL"
    )
    assert jobs
    for job_id, status, total, succeeded, failed, result, assembled in jobs:
        assert (status, total, succeeded, failed) == ("succeeded", PAGES, PAGES, 0), job_id
        assert result in (assembled, None), job_id
    texts = {
        re.sub(r"job_\w+", "", campaign.ask("GET", f"/v1/jobs/{job_id}/result").text)
        for job_id in campaign.finished()
    }
    assert len(texts) == 1
    assert len(re.findall("page [0-9a-f]{16}", texts.pop())) == PAGES


def test_every_page_was_counted_once_and_by_its_last_attempt(campaign: Campaign) -> None:
    pages = campaign.rows(
        "SELECT count(*) FROM jobs WHERE status = 'succeeded' AND PAGES_SUCCEEDED <> "
        "(SELECT count(*) FROM work JOIN recognitions USING (job_id, page_no, attempt)"
        " WHERE job_id = jobs.id AND kind = 'recognise' AND work.status = 'succeeded')"
    )
    assert pages == [(0,)]
    unfinished = "SELECT count(*) FROM work WHERE status IN ('queued', 'running')"
    assert campaign.rows(unfinished) == [(0,)]


def test_what_was_taken_away_is_gone(campaign: Campaign) -> None:
    assert set(campaign.taken_away.values()) == {"deleted", "expired"}
    wait_until(
        lambda: (
            campaign.rows("SELECT count(*) FROM jobs WHERE deleted_at IS NOT NULL") == [(0,)]
            and campaign.rows("SELECT count(*) FROM jobs WHERE expires_at < now()") == [(0,)]
        ),
        "purge and expiry",
    )
    for job_id, how in campaign.taken_away.items():
        answer = campaign.ask("GET", f"/v1/jobs/{job_id}")
        if how == "deleted":
            assert answer.json()["code"] == "job_deleted"
        else:
            assert answer.json()["status"] == "expired"


def test_no_object_is_left_that_nothing_refers_to(campaign: Campaign) -> None:
    wait_until(lambda: _stored(campaign) == _referred_to(campaign), "collection", 60)
    assert not campaign.bucket.list_multipart_uploads(Bucket="octavo").get("Uploads")
    assert campaign.logged("sweeper", "upload_collected") >= KILLS
    assert campaign.logged("sweeper", "orphan_collected") >= 3 * KILLS


def _stored(campaign: Campaign) -> set[str]:
    pages = campaign.bucket.get_paginator("list_objects_v2").paginate(Bucket="octavo")
    return {entry["Key"] for page in pages for entry in page.get("Contents", [])}


def _referred_to(campaign: Campaign) -> set[str]:
    jobs = campaign.rows("SELECT tenant, id, result_attempt FROM jobs WHERE status = 'succeeded'")
    kept: set[str] = set()
    for tenant, job_id, attempt in jobs:
        ids = UUID(str(tenant)), UUID(str(job_id))
        kept.add(storage.source_key(*ids))
        kept |= {storage.result_key(*ids, attempt, kind) for kind in ("json", "md", "txt")}
    images = "SELECT image_key FROM pages JOIN jobs ON jobs.id = job_id WHERE status = 'succeeded'"
    return kept | {key for (key,) in campaign.rows(images)}
