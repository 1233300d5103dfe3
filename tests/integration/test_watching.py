"""Watching a page while it is read: from the engine's tokens to the reader's events."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from api import watching
from api.app import create_app
from api.watching import EventStream
from client.errors import ApiError
from client.event_stream import EventDecoder
from client.models import DocumentPage, PageEvent, PageReset, PageText
from client.sdk import Octavo
from deploy.embedded import ports
from shared import config, glances, jobs, keys, new_pages, pages, work
from shared.audit import Action
from shared.connection import Connection
from shared.db import transaction
from shared.errors import DatabaseUnavailable, PageTimeout
from shared.glances import Place, Sight, Told
from shared.models import Audit, Job, Work
from shared.roles import Role
from shared.status import WorkKind
from tests import acting
from tests.acting import acting_as
from tests.factory import (
    authorization,
    claimed,
    make_job,
    make_prepared,
    make_readable,
    recognition,
    work_of,
)
from tests.faults import fake_settings, page_image, running
from tests.integration.test_blame import equipped, read_all
from tests.serving import served
from worker import glances as telling
from worker import sweeper
from worker.engine.faults import Fault
from worker.engine.reading import Reading
from worker.glances import Glances
from worker.heartbeat import Heartbeat

PAGE = page_image(Fault.SLOW)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watching, "AWAY_SECONDS", 0.2)
    monkeypatch.setattr(watching, "RETRY_MILLISECONDS", 50)
    monkeypatch.setattr(telling, "ROUND_SECONDS", 0.1)


@dataclass
class Platform:
    """A gateway behind real HTTP."""

    url: str
    state: Any

    def client(self, job: Job) -> Octavo:
        """A reader of the job's tenant."""
        with transaction() as session:
            return Octavo(self.url, keys.create(session, job.tenant))


@pytest.fixture
def app(_schema: None) -> acting.App:
    return acting.App(create_app(), Role.GATEWAY)


@pytest.fixture
def platform(app: acting.App) -> Iterator[Platform]:
    with served(app) as port:
        try:
            yield Platform(f"http://{ports.HOST}:{port}", app.state)
        finally:
            app.state.draining.set()  # whoever still watches is let go


@contextmanager
def working(*, delay_seconds: float = 0) -> Iterator[Heartbeat]:
    """This process as an engine worker, which takes so long for a page."""
    settings = fake_settings(faults="slow", slow_seconds=delay_seconds)  # not for the golden page
    with settings, running() as host, equipped(host) as heartbeat:
        thread = Glances(heartbeat)
        thread.start()
        try:
            yield heartbeat
        finally:
            thread.stop()


def prepared(session: Session, page_count: int = 1) -> tuple[Job, Work]:
    job, units = make_prepared(session, page_count)
    return job, units[0]


def public(job: Job) -> str:
    return jobs.public_id(job.id)


def rows() -> list[Any]:
    with transaction() as session:
        return list(session.execute(text("SELECT attempt, text FROM glances")))


def wanted_until() -> datetime:
    """Until when the one page is watched that is."""
    with transaction() as session:
        until = session.execute(text("SELECT wanted_until FROM glances")).scalar_one()
    assert isinstance(until, datetime)
    return until


def glanced_at(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The readings that are glanced at from now on, in vain."""
    readings: list[object] = []

    def note(reading: Reading) -> str:
        readings.append(reading)
        return "so far"

    monkeypatch.setattr(Reading, "glance", note)
    return readings


def wait_until(holds: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


class Reader:
    """Somebody who watches the first page of a job, in a thread."""

    def __init__(self, platform: Platform, job: Job) -> None:
        self.seen: list[PageEvent] = []
        self.error: Exception | None = None
        self._octavo = platform.client(job)
        self._thread = threading.Thread(target=self._watch, args=[public(job)], daemon=True)
        self._thread.start()

    def _watch(self, job_id: str) -> None:
        try:
            with self._octavo:
                self.seen.extend(self._octavo.page_events(job_id, 1))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    @property
    def text(self) -> str:
        """What counts of the text."""
        said = ""
        for each in self.seen:
            said = "" if isinstance(each, PageReset) else said + getattr(each, "text", "")
            if isinstance(each, DocumentPage):
                return said.removesuffix(each.text)
        return said

    def end(self) -> DocumentPage:
        """The page, when it has come."""
        self._thread.join(20)
        assert self.error is None, self.error
        last = self.seen[-1]
        assert isinstance(last, DocumentPage)
        return last

    def fail(self) -> Exception:
        """What it came to."""
        self._thread.join(20)
        assert self.error is not None
        return self.error


class TestAPageThatIsRead:
    def test_its_text_grows_before_it_is_done(self, platform: Platform) -> None:
        job = make_readable([PAGE])
        with working(delay_seconds=6):
            reader = Reader(platform, job)
            wait_until(rows)
            read_all(job, 1)
            page = reader.end()

        *said, last = reader.seen
        assert last is page
        assert [type(each) for each in said] == [PageText] * len(said)
        assert len(said) >= 2
        assert reader.text.split() == page.text.split()[: len(reader.text.split())] != []
        assert {each.attempt for each in said if isinstance(each, PageText)} == {1}

    def test_the_last_event_is_the_page_as_its_route_gives_it(self, platform: Platform) -> None:
        job = make_readable([PAGE])
        with working():
            read_all(job, 1)
        with transaction() as session:
            headers = {"Authorization": f"Bearer {keys.create(session, job.tenant)}"}

        path = f"{platform.url}/v1/jobs/{public(job)}/pages/1"
        stream = httpx.get(f"{path}/events", headers=headers)
        page = httpx.get(path, headers=headers)

        assert stream.status_code == 200
        assert stream.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        assert stream.headers["X-Accel-Buffering"] == "no"
        assert stream.headers["Cache-Control"] == "no-store"
        retry, said, *rest = stream.text.split("\n\n")
        assert (retry, rest) == ("retry: 50", [""])
        name, data = said.split("\n")
        assert name == "event: page"
        assert json.loads(data.removeprefix("data: ")) == page.json()

    def test_who_comes_later_sees_all_of_it(self, platform: Platform) -> None:
        job = make_readable([PAGE])
        with working(delay_seconds=6):
            first = Reader(platform, job)
            wait_until(rows)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(read_all, job, 1)
                wait_until(lambda: first.text)
                second = Reader(platform, job)
            pages_read = first.end(), second.end()

        assert pages_read[0] == pages_read[1]
        assert second.text.startswith("page ")
        assert first.text.startswith("page ")

    def test_without_a_reader_nothing_is_told_or_written(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        glanced = glanced_at(monkeypatch)
        monkeypatch.setattr(glances, "tell", lambda *said: glanced.append(said))
        job = make_readable([PAGE, PAGE])

        with working(delay_seconds=0.5):
            read_all(job, 2)

        assert (glanced, rows()) == ([], [])

    def test_a_reader_costs_those_who_have_none_nothing(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        glanced = glanced_at(monkeypatch)
        watched, other = make_readable([PAGE]), make_readable([PAGE])

        with working(delay_seconds=3):
            reader = Reader(platform, watched)
            wait_until(rows)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(read_all, other, 1)
                read_all(watched, 1)
            reader.end()

        assert len(set(glanced)) == 1

    def test_an_engine_that_cannot_tell_costs_its_page_nothing(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object) -> None:
            raise DatabaseUnavailable

        monkeypatch.setattr(glances, "watched", refuse)
        job = make_readable([PAGE])
        with working(delay_seconds=0.5):
            reader = Reader(platform, job)
            read_all(job, 1)

        assert reader.end().status == "succeeded"
        assert [type(each) for each in reader.seen] == [DocumentPage]

    def test_a_reader_who_leaves_is_forgotten(
        self, platform: Platform, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(glances, "WANTED_SECONDS", 0.5)
        with transaction() as session:
            job, unit = prepared(session)
            claimed(session, unit)
            headers = {"Authorization": f"Bearer {keys.create(session, job.tenant)}"}
        seats = platform.state.limits.watchers
        free = seats._free  # noqa: SLF001 - of the gateway

        with httpx.stream("GET", events_of(platform, job), headers=headers) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            wait_until(rows)
            assert seats._free == free - 1  # noqa: SLF001
            until = wanted_until()
            wait_until(lambda: wanted_until() > until)  # it is renewed

        wait_until(lambda: seats._free == free)  # noqa: SLF001
        wait_until(sweeper.forget_glances)
        assert rows() == []


def events_of(platform: Platform, job: Job, page_no: int = 1) -> str:
    return f"{platform.url}/v1/jobs/{public(job)}/pages/{page_no}/events"


def told(unit: Work, said: str, *, attempt: int | None = None) -> None:
    """What a worker writes that holds the page."""
    with acting_as(Role.WORKER), transaction() as session:
        glances.tell(session, [(claim_of(unit, attempt), said)])


def claim_of(unit: Work, attempt: int | None = None) -> work.Claim:
    with acting_as(None), transaction() as session:
        row = session.get_one(Work, unit.id)
        return work.Claim(
            row.id,
            row.kind,
            row.tenant,
            row.job_id,
            row.page_no,
            row.queue,
            attempt or row.attempt,
            row.failures,
            row.among,
        )


@pytest.fixture
def unit() -> Work:
    """A page that is held."""
    with transaction() as session:
        _, unit = prepared(session)
        claimed(session, unit)
    return unit


@pytest.fixture
def job(unit: Work) -> Job:
    with transaction() as session:
        return session.get_one(Job, unit.job_id)


class TestAStream:
    def test_another_attempt_begins_anew(self, platform: Platform, job: Job, unit: Work) -> None:
        reader = Reader(platform, job)
        wait_until(rows)
        told(unit, "ein Käse \U0001f9d0")
        wait_until(lambda: reader.text)
        told(unit, "ein Käse \U0001f9d0 und mehr")
        wait_until(lambda: reader.text.endswith("mehr"))

        with transaction() as session:
            work.release(session, claim_of(unit))
            claimed(session, unit)
        told(unit, "ein späteres Wort des ersten Versuchs", attempt=1)
        wait_until(lambda: PageReset(attempt=2) in reader.seen)
        told(unit, "anders")
        wait_until(lambda: reader.text)
        told(unit, "noch eines", attempt=1)
        with transaction() as session:
            pages.succeed(session, claim_of(unit), recognition("anders gelesen"))
        page = reader.end()

        assert reader.seen == [
            PageText(text="ein Käse \U0001f9d0", attempt=1),
            PageText(text=" und mehr", attempt=1),
            PageReset(attempt=2),
            PageText(text="anders", attempt=2),
            page,
        ]

    def test_a_page_that_fails_is_told(self, platform: Platform, job: Job, unit: Work) -> None:
        reader = Reader(platform, job)
        wait_until(rows)
        with transaction() as session:
            pages.fail(session, claim_of(unit), PageTimeout())

        page = reader.end()

        assert (page.status, page.error and page.error.code) == ("failed", "page_timeout")

    def test_a_job_that_is_cancelled_ends_it(self, platform: Platform, job: Job) -> None:
        reader = Reader(platform, job)
        wait_until(rows)
        with platform.client(job) as octavo:
            octavo.cancel(public(job))

        assert reader.end().status == "cancelled"

    def test_a_job_that_is_deleted_ends_it(self, platform: Platform, job: Job) -> None:
        reader = Reader(platform, job)
        wait_until(rows)
        with platform.client(job) as octavo:
            octavo.delete(public(job))

        error = reader.fail()

        assert isinstance(error, ApiError)
        assert (error.code, error.status) == ("job_deleted", 410)
        wait_until(sweeper.purge)
        assert rows() == []

    def test_a_key_that_is_revoked_ends_it(
        self, platform: Platform, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "CHECK_SECONDS", 0.1)
        with transaction() as session:
            key = keys.create(session, job.tenant)
        with httpx.stream(
            "GET", events_of(platform, job), headers={"Authorization": f"Bearer {key}"}, timeout=30
        ) as stream:
            lines = stream.iter_lines()
            next(lines)
            with transaction() as session:
                keys.revoke(session, key.split("_")[2])
            told = "\n".join(lines)

        assert "event: problem" in told
        assert "unauthenticated" in told

    def test_a_page_that_is_not_known_yet_is_waited_for(self, platform: Platform) -> None:
        with transaction() as session:
            job = make_job(session)
        reader = Reader(platform, job)
        time.sleep(0.3)
        assert (reader.error, rows()) == (None, [])
        with transaction() as session:
            held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
            new_pages.begin(session, held, job, 1)
            new_pages.add(session, held, [new_pages.Rendered(1, "key", 1, 1)])
        wait_until(rows)
        with transaction() as session:
            [unit] = work_of(session, job, WorkKind.RECOGNISE)
            pages.succeed(session, claimed(session, unit), recognition())

        assert reader.end().text == "said"

    def test_a_page_that_will_not_be_is_not_waited_for(self, platform: Platform, job: Job) -> None:
        with platform.client(job) as octavo, pytest.raises(ApiError) as none_such:
            next(octavo.page_events(public(job), 2))

        assert (none_such.value.code, none_such.value.status) == ("not_found", 404)

    def test_another_tenants_page_does_not_exist(self, platform: Platform, job: Job) -> None:
        answer = httpx.get(events_of(platform, job), headers=authorization())

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert rows() == []

    def test_it_ends_after_a_while_and_goes_on_where_it_was(
        self, platform: Platform, job: Job, unit: Work, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        short = config.settings().model_copy(update={"max_watch_seconds": 0.3})
        monkeypatch.setattr(watching, "settings", lambda: short)
        reader = Reader(platform, job)
        wait_until(rows)
        for said in ("eins", "eins zwei", "eins zwei drei"):
            told(unit, said)
            wait_until(lambda: reader.text == said)  # noqa: B023 - before the next
            time.sleep(0.5)
        with transaction() as session:
            pages.succeed(session, claim_of(unit), recognition())
        reader.end()

        assert reader.seen[:-1] == [
            PageText(text=said, attempt=1) for said in ("eins", " zwei", " drei")
        ]

    @pytest.mark.parametrize(
        ("last_id", "said"),
        [
            ("1-4", " zwei"),
            ("1-0", "eins zwei"),
            ("1-99", ""),
            ("0-0", "eins zwei"),
            ("9-4", "eins zwei"),
            ("nonsense", "eins zwei"),
            ("1-4\u0664", "eins zwei"),
            ("1-99999999999999999999", "eins zwei"),
        ],
    )
    def test_any_last_id_leads_somewhere(
        self, platform: Platform, job: Job, unit: Work, last_id: str, said: str
    ) -> None:
        with transaction() as session:
            glances.watch(session, job.tenant, job.id, 1)
            key = keys.create(session, job.tenant)
        told(unit, "eins zwei")
        platform.state.draining.set()  # all that there is, and no more

        headers = [
            (b"Authorization", f"Bearer {key}".encode()),
            (b"Last-Event-ID", last_id.encode()),
        ]
        answer = httpx.get(events_of(platform, job), headers=headers)

        data = [line for line in answer.text.splitlines() if line.startswith("data: ")]
        texts = [json.loads(line.removeprefix("data: ")).get("text", "") for line in data]
        assert "".join(texts) == said

    def test_it_ends_at_once_when_the_gateway_does(
        self, platform: Platform, job: Job, app: acting.App
    ) -> None:
        with transaction() as session:
            headers = {"Authorization": f"Bearer {keys.create(session, job.tenant)}"}
        with httpx.stream("GET", events_of(platform, job), headers=headers) as answer:
            wait_until(rows)
            began = time.monotonic()
            app.state.draining.set()
            said = answer.read()

        assert time.monotonic() - began < 10
        assert said == b"retry: 50\n\n"

    def test_it_is_kept_alive(
        self, platform: Platform, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "KEEP_ALIVE_SECONDS", 0.1)
        with transaction() as session:
            headers = {"Authorization": f"Bearer {keys.create(session, job.tenant)}"}

        with httpx.stream("GET", events_of(platform, job), headers=headers) as answer:
            said = b"".join(islice(answer.iter_raw(), 3))

        assert said == b"retry: 50\n\n: keep-alive\n\n: keep-alive\n\n"
        assert [*EventDecoder().feed(said)] == []

    def test_it_holds_no_connection_between_two_looks(self, platform: Platform, job: Job) -> None:
        readers = [Reader(platform, job) for _ in range(5)]
        wait_until(rows)
        pool = acting.engine_of(Role.GATEWAY).pool
        taken = []
        for _ in range(50):
            taken.append(pool.checkedout())  # type: ignore[attr-defined]
            time.sleep(0.01)
        with platform.client(job) as octavo:
            octavo.cancel(public(job))

        assert 0 in taken
        assert all(reader.end() for reader in readers)

    def test_it_is_one_download_in_the_audit_log(
        self, platform: Platform, job: Job, unit: Work
    ) -> None:
        def reads() -> int:
            with transaction() as session:
                return session.query(Audit).filter_by(action=Action.PAGE_READ).count()

        reader = Reader(platform, job)
        wait_until(rows)
        assert reads() == 0
        told(unit, "etwas")
        wait_until(lambda: reader.text)
        assert reads() == 1
        with transaction() as session:
            pages.succeed(session, claim_of(unit), recognition())
        reader.end()

        assert reads() == 1

    def test_a_client_that_takes_nothing_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        short = config.settings().model_copy(update={"max_watch_seconds": 0.1})
        monkeypatch.setattr(watching, "settings", lambda: short)
        monkeypatch.setattr(watching, "LEAVING_SECONDS", 0.1)

        async def never(*_: object) -> Any:
            await asyncio.Event().wait()

        async def events() -> AsyncIterator[bytes]:
            yield b": hi\n\n"

        stream = EventStream(events())({"type": "http"}, never, never)
        asyncio.run(asyncio.wait_for(stream, 5))

    def test_no_more_watch_than_there_are_places(
        self, platform: Platform, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limits = platform.state.limits
        monkeypatch.setattr(limits.tenant_watchers, "_most", 1)
        monkeypatch.setattr(limits.watchers, "_free", 2)
        with transaction() as session:
            mine = {"Authorization": f"Bearer {keys.create(session, job.tenant)}"}
            other, _ = prepared(session)
        with httpx.stream("GET", events_of(platform, job), headers=mine):
            refused = httpx.get(events_of(platform, job), headers=mine)
            reader = Reader(platform, other)
            wait_until(lambda: not limits.watchers._free)  # noqa: SLF001
            full = httpx.get(events_of(platform, job), headers=authorization())
        wait_until(lambda: limits.watchers._free)  # noqa: SLF001

        found = [(each.status_code, each.json()["code"]) for each in (refused, full)]
        assert found == [(429, "too_many_in_flight"), (503, "overloaded")]
        assert all(int(each.headers["Retry-After"]) for each in (refused, full))
        with platform.client(other) as octavo:
            octavo.cancel(public(other))
        assert reader.end()


@contextmanager
def frozen_database() -> Iterator[None]:
    """Postgres with all of its processes stands still."""
    with transaction() as session:
        directory = session.execute(text("SHOW data_directory")).scalar_one()
    pid = int(Path(directory, "postmaster.pid").read_text().split()[0])
    postmaster = psutil.Process(pid)
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for process in stopped:
        with suppress(psutil.NoSuchProcess):
            os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in reversed(stopped):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)


class TestWithoutADatabase:
    def test_a_stream_outlives_its_freezing(
        self, platform: Platform, job: Job, unit: Work, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watching, "KEEP_ALIVE_SECONDS", 0.2)
        monkeypatch.setattr(Connection, "answer_seconds", 0.5)
        with transaction() as session:
            headers = {"Authorization": f"Bearer {keys.create(session, job.tenant)}"}
        with httpx.stream("GET", events_of(platform, job), headers=headers) as answer:
            pieces = answer.iter_raw()
            wait_until(rows)
            told(unit, "davor")
            assert b"davor" in next_with(pieces, b"event: text")
            with frozen_database():
                began = time.monotonic()
                while time.monotonic() - began < 3:
                    assert b"keep-alive" in next(pieces)
            monkeypatch.setattr(Connection, "answer_seconds", 5)
            with transaction() as session:
                pages.succeed(session, claim_of(unit), recognition("danach"))
            assert b"danach" in next_with(pieces, b"event: page")
            assert b"".join(pieces) == b""

    def test_none_begins(
        self, platform: Platform, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with transaction() as session:
            headers = {"Authorization": f"Bearer {keys.create(session, job.tenant)}"}
        httpx.get(f"{platform.url}/v1/limits", headers=headers)  # the key is known now

        def refuse(*_: object) -> None:
            raise DatabaseUnavailable(retry_after_seconds=2)

        monkeypatch.setattr(glances, "look", refuse)
        answer = httpx.get(events_of(platform, job), headers=headers)

        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")

    def test_a_worker_goes_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rounds: list[object] = []

        def crash(*_: object) -> None:
            rounds.append(_)
            raise (DatabaseUnavailable if len(rounds) % 2 else ZeroDivisionError)

        monkeypatch.setattr(glances, "watched", crash)
        job = make_readable([PAGE])
        with working(delay_seconds=3):
            read_all(job, 1)

        assert len(rounds) >= 2
        with transaction() as session:
            assert [page.status for page in pages.finished(session, job.id)] == ["succeeded"]


def next_with(pieces: Iterator[bytes], word: bytes) -> bytes:
    return next(piece for piece in pieces if word in piece)


class TestRows:
    def test_a_place_leads_to_what_comes_after_it(self, unit: Work) -> None:
        def look(place: Place) -> Sight | None:
            with acting_as(Role.GATEWAY), transaction(unit.tenant) as session:
                return glances.look(session, unit.tenant, unit.job_id, 1, place)

        assert look(Place()) == Sight(attempt=1, more="", lapses=True)
        with acting_as(Role.GATEWAY), transaction(unit.tenant) as session:
            glances.watch(session, unit.tenant, unit.job_id, 1)
        assert look(Place()) == Sight(attempt=1, more="", lapses=False)
        told(unit, "äöü")
        assert look(Place()) == Sight(attempt=1, more="äöü", lapses=False)
        assert look(Place(1, 2)) == Sight(attempt=1, more="ü", lapses=False)
        assert look(Place(1, 3)) == Sight(attempt=1, more="", lapses=False)
        with transaction() as session:
            pages.succeed(session, claim_of(unit), recognition())
        assert look(Place()) is None

    def test_nobody_makes_a_row_for_a_foreign_page(self, unit: Work) -> None:
        with transaction() as session:
            other, _ = prepared(session)
        with acting_as(Role.GATEWAY), transaction(other.tenant) as session:
            glances.watch(session, other.tenant, unit.job_id, 1)
            assert glances.look(session, other.tenant, unit.job_id, 1, Place()) is None

        assert rows() == []

    def test_a_round_without_readers_is_one_question(self, unit: Work) -> None:
        heartbeat = Heartbeat([], 1, {})
        asked: list[str] = []

        def note(*arguments: Any) -> None:
            asked.append(arguments[2])

        engine = acting.engine_of(Role.WORKER)
        event.listen(engine, "before_cursor_execute", note)
        try:
            with acting_as(Role.WORKER):
                Glances(heartbeat).round()
                assert asked == []  # it holds nothing
                with heartbeat.holding(claim_of(unit)) as held:
                    held.glance = lambda: pytest.fail("nobody watches")
                    Glances(heartbeat).round()
        finally:
            event.remove(engine, "before_cursor_execute", note)

        [question] = asked
        assert question.strip().startswith("SELECT held.id")

    def test_a_round_tells_what_is_new(self, unit: Work) -> None:
        heartbeat = Heartbeat([], 1, {})
        said = ["", "eins", "eins", "eins zwei"]
        with transaction() as session:
            glances.watch(session, unit.tenant, unit.job_id, 1)
        written: list[str] = []
        with (
            acting_as(Role.WORKER),
            heartbeat.holding(claim_of(unit)) as held,
            pytest.MonkeyPatch.context() as patch,
        ):
            tell = glances.tell

            def note(session: Session, news: Any) -> None:
                written.append(news[0][1])
                tell(session, news)

            patch.setattr(glances, "tell", note)
            held.glance = lambda: said.pop(0)
            while said:
                Glances(heartbeat).round()

        assert written == ["eins", "eins zwei"]
        assert rows() == [(1, "eins zwei")]

    def test_what_postgres_forgot_is_told_again(self, unit: Work) -> None:
        heartbeat = Heartbeat([], 1, {})
        with heartbeat.holding(claim_of(unit)) as held:
            held.glance = lambda: "eins"
            for _ in range(2):
                with transaction() as session:
                    session.execute(text("TRUNCATE glances"))  # as after a crash
                    glances.watch(session, unit.tenant, unit.job_id, 1)
                Glances(heartbeat).round()
                assert rows() == [(1, "eins")]

    def test_an_earlier_attempt_says_nothing_over_a_later_one(self, unit: Work) -> None:
        with transaction() as session:
            glances.watch(session, unit.tenant, unit.job_id, 1)

        for attempt, said in ((2, "zwei"), (1, "eins"), (2, "zwei und mehr"), (3, "drei")):
            told(unit, said, attempt=attempt)
            expected = (2, "zwei") if attempt == 1 else (attempt, said)
            assert rows() == [expected]

    def test_whose_row_is_locked_is_left_out(self, unit: Work) -> None:
        with transaction() as session:
            glances.watch(session, unit.tenant, unit.job_id, 1)
        with transaction() as session:
            session.execute(text("SELECT 1 FROM glances FOR UPDATE"))
            began = time.monotonic()
            told(unit, "eins")
            assert sweeper.forget_glances() == 0

        assert time.monotonic() - began < 1
        assert rows() == [(None, "")]

    def test_what_is_watched_is_told_apart_by_page(self) -> None:
        with transaction() as session:
            job, units = make_prepared(session, 3)
            held = [claimed(session, unit) for unit in units]
            glances.watch(session, job.tenant, job.id, 2)

            assert glances.watched(session, held) == {held[1].id: Told(None, 0)}
            session.execute(text("UPDATE glances SET wanted_until = now() - interval '1 s'"))
            assert glances.watched(session, held) == {}

    def test_the_table_is_not_logged(self, session: Session) -> None:
        query = text("SELECT relpersistence FROM pg_class WHERE oid = 'glances'::regclass")

        assert session.execute(query).scalar_one() == "u"
