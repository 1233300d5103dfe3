"""A page that was read with a flaw is read again, a few times, and ends flagged at worst."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared import failure, ladder, pages, work, workers
from shared.config import Settings, settings
from shared.db import transaction
from shared.document import (
    Block,
    BlockKind,
    Box,
    DocumentPage,
    FinishReason,
    Flaw,
    Recognition,
    Usage,
)
from shared.errors import PageTimeout
from shared.models import Job, Work
from shared.options import JobOptions
from shared.roles import Role
from shared.status import WorkKind
from tests.acting import acting_as
from tests.factory import claimed, make_prepared, make_readable, recognition, work_of
from tests.faults import fake_settings, page_image, running
from tests.integration.test_blame import equipped, read_all
from worker.engine.faults import Fault

USAGE = Usage(vision_tokens=100, output_tokens=10, engine_seconds=1.0)


@pytest.fixture(autouse=True)
def _in_the_workers_role() -> Iterator[None]:
    with acting_as(Role.WORKER):
        yield


@pytest.fixture
def paddle_may_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is configured, and a worker of it lives."""
    chosen = settings().model_copy(update={"fallback_engines": ("paddle",)})
    monkeypatch.setattr(ladder, "settings", lambda: chosen)
    with transaction() as session:
        workers.beat(
            session,
            "paddle",
            queues=["recognise.paddle"],
            slots=1,
            busy=0,
            draining=False,
            version="1",
            device={},
        )


@pytest.fixture
def unit() -> Work:
    with acting_as(None), transaction() as session:
        _, [unit] = make_prepared(session, 1)
    return unit


def read(said: str, mode: str | None, flaw: Flaw | None, engine: str = "fake") -> Recognition:
    reasons = {Flaw.LENGTH: FinishReason.LENGTH, Flaw.REPETITION: FinishReason.REPETITION}
    reason = reasons.get(flaw, FinishReason.STOP) if flaw else FinishReason.STOP
    return recognition(said, engine=engine, mode=mode, finish_reason=reason, usage=USAGE)


def concluded(session: Session, unit: Work, said: Recognition, flaw: Flaw | None) -> str:
    """Read a page so; the queue in which it then waits, or its end."""
    assert conclude(session, claimed(session, unit), said, flaw)
    row = session.execute(
        text("SELECT status, queue FROM work WHERE id = :id"), {"id": unit.id}
    ).one()
    return str(row.queue if row.status == "queued" else row.status)


def conclude(
    session: Session, held: work.Claim, said: Recognition, flaw: Flaw | None, engine: str = "auto"
) -> bool:
    """What the task does with a reading, but for the figures."""
    options = JobOptions(engine=engine)
    outcome = ladder.outcome(
        ladder.standing(session, held),
        said,
        flaw=flaw,
        task=options.task,
        others=ladder.fallbacks(session, options),
    )
    return ladder.conclude(session, held, outcome)


def result(session: Session, job_id: Any) -> DocumentPage:
    [page] = pages.finished(session, job_id)
    return page


def tries(page: DocumentPage) -> list[tuple[str, str | None, str | None]]:
    return [(one.engine, one.mode, one.flaw) for one in page.tries]


class TestClimbing:
    """Transitions, one at a time."""

    def test_a_sound_reading_stands_and_tells_of_no_tries(
        self, session: Session, unit: Work
    ) -> None:
        assert concluded(session, unit, read("good", "base", None), None) == "succeeded"

        page = result(session, unit.job_id)
        assert (page.tries, page.needs_review) == ([], False)

    def test_a_higher_mode_heals(self, session: Session, unit: Work) -> None:
        cut = read("cut o", "base", Flaw.LENGTH)
        assert concluded(session, unit, cut, Flaw.LENGTH) == "recognise.fake"
        assert concluded(session, unit, read("whole", "gundam", None), None) == "succeeded"

        page = result(session, unit.job_id)
        assert (page.text, page.mode, page.needs_review) == ("whole", "gundam", False)
        assert tries(page) == [("fake", "base", "length"), ("fake", "gundam", None)]

    def test_without_another_engine_the_best_stands_and_is_flagged(
        self, session: Session, unit: Work
    ) -> None:
        concluded(session, unit, read("cut o", "base", Flaw.LENGTH), Flaw.LENGTH)
        empty = read("", "gundam", Flaw.EMPTY)
        assert concluded(session, unit, empty, Flaw.EMPTY) == "succeeded"

        page = result(session, unit.job_id)
        assert (page.text, page.mode, page.needs_review) == ("cut o", "base", True)
        assert tries(page) == [("fake", "base", "length"), ("fake", "gundam", "empty")]

    def test_another_engine_helps_where_it_is_configured(
        self, session: Session, unit: Work, paddle_may_help: None
    ) -> None:
        round_ = read("round round", "gundam", Flaw.REPETITION)
        assert concluded(session, unit, round_, Flaw.REPETITION) == "recognise.paddle"
        helped = read("line", None, None, engine="paddle")
        assert concluded(session, unit, helped, None) == "succeeded"

        page = result(session, unit.job_id)
        assert (page.text, page.engine, page.needs_review) == ("line", "paddle", False)

    def test_an_engine_without_a_living_worker_is_not_waited_for(
        self, session: Session, unit: Work, paddle_may_help: None
    ) -> None:
        workers.leave(session, "paddle")

        empty = read("", "gundam", Flaw.EMPTY)
        assert concluded(session, unit, empty, Flaw.EMPTY) == "succeeded"
        assert result(session, unit.job_id).needs_review

    def test_a_named_engine_is_the_only_one_that_reads(
        self, session: Session, unit: Work, paddle_may_help: None
    ) -> None:
        empty = read("", "gundam", Flaw.EMPTY)
        assert conclude(session, claimed(session, unit), empty, Flaw.EMPTY, engine="fake")

        assert result(session, unit.job_id).needs_review

    def test_every_reading_is_counted_once(self, session: Session, unit: Work) -> None:
        concluded(session, unit, read("cut o", "base", Flaw.LENGTH), Flaw.LENGTH)
        concluded(session, unit, read("", "gundam", Flaw.EMPTY), Flaw.EMPTY)

        job = session.get_one(Job, unit.job_id, populate_existing=True)
        assert (job.vision_tokens, job.output_tokens, job.engine_seconds) == (200, 20, 2.0)
        assert (job.pages_succeeded, job.pages_failed) == (1, 0)

    def test_an_error_on_the_way_lets_the_draft_stand(self, session: Session, unit: Work) -> None:
        concluded(session, unit, read("cut o", "base", Flaw.LENGTH), Flaw.LENGTH)
        assert failure.settle(session, claimed(session, unit), PageTimeout())

        page = result(session, unit.job_id)
        assert (page.status, page.text, page.needs_review) == ("succeeded", "cut o", True)
        assert tries(page) == [("fake", "base", "length"), ("fake", "gundam", "page_timeout")]
        kept = session.execute(text("SELECT draft FROM pages")).scalar_one()
        assert kept is None

    def test_a_draft_that_an_error_lets_stand_refers_to_no_figure(
        self, session: Session, unit: Work
    ) -> None:
        image = Block(kind=BlockKind.IMAGE, text="", box=Box(x0=0, y0=0, x1=9, y1=9))
        draft = read("cut o", "base", Flaw.LENGTH).model_copy(
            update={"markdown": "![](figures/1)\n\ncut o", "blocks": [image]}
        )
        concluded(session, unit, draft, Flaw.LENGTH)
        assert failure.settle(session, claimed(session, unit), PageTimeout())

        page = result(session, unit.job_id)
        assert page.markdown == "cut o"
        assert [block.figure for block in page.blocks] == [None]

    def test_the_sweeper_may_let_a_draft_stand(self, unit: Work) -> None:
        with transaction() as session:
            concluded(session, unit, read("cut o", "base", Flaw.LENGTH), Flaw.LENGTH)
            held = claimed(session, unit)
        with acting_as(Role.SWEEPER), transaction() as session:
            assert failure.exhaust(session, held)

    def test_whoever_lost_the_page_cannot_send_it_up(self, session: Session, unit: Work) -> None:
        late = claimed(session, unit)
        work.release(session, late)
        current = claimed(session, unit)

        cut = read("cut o", "base", Flaw.LENGTH)
        assert not conclude(session, late, cut, Flaw.LENGTH)
        assert work.renew(session, [current]) == {current.id}
        assert ladder.standing(session, current) is None

    def test_an_old_message_does_not_reach_the_engine_that_was_left(
        self, session: Session, unit: Work, paddle_may_help: None
    ) -> None:
        concluded(session, unit, read("", "gundam", Flaw.EMPTY), Flaw.EMPTY)

        assert work.claim(session, unit.id, "worker", ["recognise.fake"]) is None
        assert work.claim(session, unit.id, "worker", ["recognise.paddle"]) is not None


@pytest.mark.parametrize(
    ("fault", "said", "review", "flaws"),
    [
        (None, True, False, []),
        (Fault.CURED, True, False, ["repetition", None]),
        (Fault.EMPTY, False, True, ["empty", "empty"]),
    ],
)
def test_the_fake_engines_pages_climb_and_end(
    fault: Fault | None, flaws: list[str | None], *, said: bool, review: bool
) -> None:
    with acting_as(None):
        job = make_readable([page_image(fault, text="words")])
        with fake_settings(faults="cured,empty"), running() as host, equipped(host):
            read_all(job, threads=1)
        with transaction() as session:
            page = result(session, job.id)
            [unit] = work_of(session, job, WorkKind.RECOGNISE)

    assert (bool(page.text), page.needs_review) == (said, review)
    assert [one.flaw for one in page.tries] == flaws
    assert unit.attempt == max(1, len(flaws))


def test_a_blank_page_is_empty_and_right() -> None:
    with acting_as(None):
        job = make_readable([page_image(Fault.EMPTY)])
        with (
            fake_settings(faults="empty"),
            running() as host,
            equipped(host),
            patch("worker.pipeline.ink.has_ink", return_value=False),
        ):
            read_all(job, threads=1)
        with transaction() as session:
            page = result(session, job.id)

    assert (page.text, page.needs_review, page.tries) == ("", False, [])


def test_a_fallback_engine_must_be_offered() -> None:
    with pytest.raises(ValueError, match="not among OCTAVO_ENGINES: rapid"):
        Settings(fallback_engines="rapid,fake")
