"""Figures of pages in the store: who wrote them, who may read them, how long they stay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from shared import jobs, ladder, pages, storage, work
from shared.config import settings
from shared.db import transaction
from shared.document import Block, BlockKind, Box
from shared.errors import DependencyUnavailable
from shared.models import Job, Work
from shared.roles import Role
from shared.status import JobStatus, WorkKind
from shared.work import Claim
from tests.acting import acting_as
from tests.completions import Completions, Say, saying
from tests.factory import claimed, make_prepared, make_readable, recognition, work_of
from tests.faults import fake_settings, page_image, running
from tests.integration.test_blame import equipped
from tests.operations import FIGURE, finished, illustrated, submitted
from tests.serving import served
from worker import sweeper
from worker.engine import golden
from worker.engine.faults import Fault
from worker.engine.images import decoded
from worker.heartbeat import Held
from worker.tasks import figures
from worker.tasks.recognise import recognise

PAGE = page_image(size=(200, 100))
LEFT_HALF = "<|ref|>image<|/ref|><|det|>[[0, 0, 500, 999]]<|/det|>\n"


@pytest.fixture(autouse=True)
def _empty_store() -> Iterator[None]:
    storage.delete_prefix("")
    yield
    storage.delete_prefix("")


def in_store() -> set[str]:
    return {found.key for objects in storage.listing() for found in objects}


def with_images(count: int) -> list[Block]:
    box = Box(x0=0, y0=0, x1=50, y1=50)
    return [Block(kind=BlockKind.IMAGE, text="", box=box) for _ in range(count)]


def claim() -> tuple[Job, Claim]:
    with transaction() as session:
        job, [unit] = make_prepared(session, 1)
        return job, claimed(session, unit)


@contextmanager
def remote(monkeypatch: pytest.MonkeyPatch, *script: Say) -> Iterator[None]:
    """This process as a worker whose engine asks a server, which answers like that."""
    with served(Completions(saying(golden.SENTENCE), *script)) as port:
        monkeypatch.setenv("OCTAVO_REMOTE_URL", f"http://127.0.0.1:{port}/v1")
        with running("remote") as host, equipped(host):
            yield


def unit_of(job: Job) -> Work:
    with transaction() as session:
        return work_of(session, job, WorkKind.RECOGNISE)[0]


def test_what_an_engine_calls_an_image_is_cut_out_and_stored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = make_readable([PAGE])
    with remote(monkeypatch, saying(LEFT_HALF)):
        recognise(unit_of(job).id)

    with transaction() as session:
        [page] = pages.finished(session, job.id)
        key = pages.figure_key(session, job, 1, 1)
    assert page.markdown == "![](pages/1/figures/1)"
    assert [block.figure for block in page.blocks] == [1]
    assert key is not None
    assert decoded(storage.get(key)).size == (100, 100)


def test_figures_are_cut_once_of_the_reading_that_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    job = make_readable([page_image(Fault.EMPTY, size=(200, 100))])
    chosen = settings().model_copy(update={"fallback_engines": ("fake",)})
    monkeypatch.setattr(ladder, "settings", lambda: chosen)
    before = in_store()
    with remote(monkeypatch, saying(LEFT_HALF, reason="length")):
        recognise(unit_of(job).id)  # the draft
        assert in_store() == before
    with fake_settings(faults="empty"), running() as host, equipped(host):
        recognise(unit_of(job).id)  # reads less than the draft

    with transaction() as session:
        [page] = pages.finished(session, job.id)
    assert [(one.engine, one.flaw) for one in page.tries] == [
        ("remote", "length"),
        ("fake", "empty"),
    ]
    assert (page.engine, page.markdown) == ("remote", "![](pages/1/figures/1)")
    assert in_store() - before == {storage.figure_key(job.tenant, job.id, 1, 2, 1)}


def test_the_figures_of_an_attempt_lie_under_its_number() -> None:
    job, held = claim()
    read = recognition(markdown="![](figures/1)\n\n![](figures/2)", blocks=with_images(2))

    kept = figures.keep(Held(held), read, PAGE)

    keys = [storage.figure_key(job.tenant, job.id, 1, held.attempt, number) for number in (1, 2)]
    assert in_store() == set(keys)
    assert storage.get(keys[0]).startswith(b"\xff\xd8")
    assert kept.markdown == "![](pages/1/figures/1)\n\n![](pages/1/figures/2)"
    with transaction() as session:
        assert pages.succeed(session, held, kept)
    with transaction() as session:
        assert pages.figure_key(session, job, 1, 2) == keys[1]
        assert pages.figure_key(session, job, 1, 3) is None


def test_a_late_attempt_overwrites_nothing_and_is_never_read() -> None:
    job, late = claim()
    figures.keep(Held(late), recognition(blocks=with_images(2)), PAGE)
    with transaction() as session:
        assert work.release(session, late)
        current = claimed(session, work_of(session, job, WorkKind.RECOGNISE)[0])
    kept = figures.keep(Held(current), recognition(blocks=with_images(1)), PAGE)
    with transaction() as session:
        assert not pages.succeed(session, late, kept)
        assert pages.succeed(session, current, kept)

    with transaction() as session:
        key = storage.figure_key(job.tenant, job.id, 1, current.attempt, 1)
        assert pages.figure_key(session, job, 1, 1) == key
        assert pages.figure_key(session, job, 1, 2) is None


def test_a_page_that_is_lost_meanwhile_stores_no_more() -> None:
    _, given = claim()
    held = Held(given)
    held.lose()

    figures.keep(held, recognition(blocks=with_images(3)), PAGE)

    assert in_store() == set()


def test_a_reader_gets_a_figure_as_soon_as_its_page_is_read(gateway: TestClient) -> None:
    job = illustrated(gateway)

    [block] = gateway.get(f"/v1/jobs/{job}/pages/1").json()["blocks"]
    answer = gateway.get(f"/v1/jobs/{job}/pages/1/figures/{block['figure']}")

    assert (answer.status_code, answer.content) == (200, FIGURE)
    assert answer.headers["Content-Type"] == "image/jpeg"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("pages/1/figures/2", 404, "not_found"),
        ("pages/2/figures/1", 409, "page_not_finished"),
        ("pages/3/figures/1", 404, "not_found"),
        ("pages/1/figures/0", 422, "invalid_options"),
    ],
)
def test_what_is_no_figure_is_told_apart(
    gateway: TestClient, path: str, status: int, code: str
) -> None:
    answer = gateway.get(f"/v1/jobs/{illustrated(gateway)}/{path}")

    assert (answer.status_code, answer.json()["code"]) == (status, code)


def test_a_page_that_failed_has_no_figure(gateway: TestClient) -> None:
    answer = gateway.get(f"/v1/jobs/{finished(gateway)}/pages/2/figures/1")

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_figure_whose_object_is_gone_is_not_found(gateway: TestClient) -> None:
    job = illustrated(gateway)
    storage.delete_prefix("")

    assert gateway.get(f"/v1/jobs/{job}/pages/1/figures/1").status_code == 404


def test_figures_go_with_their_job(gateway: TestClient) -> None:
    job = illustrated(gateway)
    assert any("/figures/" in key for key in in_store())

    gateway.delete(f"/v1/jobs/{job}")
    sweeper.purge()

    assert in_store() == set()


def fully_read(gateway: TestClient) -> str:
    """The id of a job that was read, whose first page has a figure."""
    public = illustrated(gateway)
    with transaction() as session:
        job = session.get_one(Job, jobs.parse_id(public))
        [_, second] = work_of(session, job, WorkKind.RECOGNISE)
        pages.succeed(session, claimed(session, second), recognition())
        held = claimed(session, work_of(session, job, WorkKind.ASSEMBLE)[0])
        jobs.finish(session, held, JobStatus.SUCCEEDED)
    return public


def retried(gateway: TestClient, old: str) -> str:
    """The id of a job that reads page 2 of an old one again, and is not prepared yet."""
    return str(gateway.post(f"/v1/jobs/{old}/retry", json={"pages": "2"}).json()["id"])


def take_over(public: str) -> None:
    with transaction() as session:
        job = session.get_one(Job, jobs.parse_id(public))
        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
    for _ in range(2):  # the second time does nothing
        figures.take_over(Held(held), job)


def objects_of(public: str) -> set[str]:
    return {key for key in in_store() if f"/{jobs.parse_id(public).hex}/" in key}


def delete(gateway: TestClient, public: str) -> None:
    gateway.delete(f"/v1/jobs/{public}")
    with acting_as(Role.SWEEPER):
        sweeper.purge()


def outlive(_: TestClient, public: str) -> None:
    with transaction() as session:
        session.get_one(Job, jobs.parse_id(public)).expires_at = datetime(2020, 1, 1, tzinfo=UTC)
    with acting_as(Role.SWEEPER):
        sweeper.expire()


def test_a_retried_job_has_figures_of_its_own(gateway: TestClient) -> None:
    old = fully_read(gateway)
    new = retried(gateway, old)

    take_over(new)
    delete(gateway, old)

    assert gateway.get(f"/v1/jobs/{new}/pages/1/figures/1").content == FIGURE


@pytest.mark.parametrize("end", [delete, outlive])
def test_a_job_that_goes_before_its_retry_is_prepared_leaves_it_the_figures(
    gateway: TestClient, end: Callable[[TestClient, str], None]
) -> None:
    old = fully_read(gateway)
    heirs = [retried(gateway, old) for _ in range(2)]

    end(gateway, old)

    assert objects_of(old) == set()
    for new in heirs:
        assert gateway.get(f"/v1/jobs/{new}/pages/1/figures/1").content == FIGURE
    take_over(heirs[0])
    assert gateway.get(f"/v1/jobs/{heirs[0]}/pages/1/figures/1").content == FIGURE


def test_a_job_that_leaves_much_goes_after_some_rounds(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fully_read(gateway)
    new = retried(gateway, old)

    with monkeypatch.context() as patched:
        patched.setattr(sweeper, "HAND_OVER_FIGURES", 0)
        delete(gateway, old)
        assert gateway.delete(f"/v1/jobs/{old}").status_code == 202
    sweeper.purge()

    assert gateway.delete(f"/v1/jobs/{old}").status_code == 200
    assert gateway.get(f"/v1/jobs/{new}/pages/1/figures/1").content == FIGURE


def test_a_retry_that_is_over_inherits_nothing_more(gateway: TestClient) -> None:
    old = fully_read(gateway)
    new = retried(gateway, old)
    gateway.post(f"/v1/jobs/{new}/cancel")

    delete(gateway, old)

    assert len(in_store()) == 1  # the retry's document


def test_a_deleted_job_stays_until_the_store_takes_what_its_retry_inherits(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fully_read(gateway)
    new = retried(gateway, old)

    def refuse(*_: str) -> None:
        raise DependencyUnavailable

    with monkeypatch.context() as patched:
        patched.setattr(storage, "copy", refuse)
        delete(gateway, old)
        assert gateway.delete(f"/v1/jobs/{old}").status_code == 202
    sweeper.purge()

    assert gateway.delete(f"/v1/jobs/{old}").status_code == 200
    assert gateway.get(f"/v1/jobs/{new}/pages/1/figures/1").content == FIGURE


def test_a_job_that_is_deleted_meanwhile_is_not_retried(
    gateway: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fully_read(gateway)
    before, lock = in_store(), jobs.lock

    def late(session: Session, job_id: UUID) -> Job | None:
        monkeypatch.setattr(jobs, "lock", lock)
        gateway.delete(f"/v1/jobs/{old}")
        return lock(session, job_id)

    monkeypatch.setattr(jobs, "lock", late)
    answer = gateway.post(f"/v1/jobs/{old}/retry", json={"pages": "2"})

    assert (answer.status_code, answer.json()["code"]) == (410, "job_deleted")
    assert in_store() == before


def test_a_job_that_is_no_retry_takes_nothing_over(gateway: TestClient) -> None:
    before = in_store()
    public = submitted(gateway)
    with transaction() as session:
        job = session.get_one(Job, jobs.parse_id(public))
        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])

    figures.take_over(Held(held), job)

    assert len(in_store() - before) == 1  # its document
