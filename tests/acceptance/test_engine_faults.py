"""What the engine does wrong costs the page that it does wrong, through the whole platform."""

import io
from collections.abc import Iterator

import pytest
from PIL import Image

from client.models import Document, Job
from client.sdk import Octavo
from deploy.local import Platform
from tests.acceptance.conftest import SHORT_TIMERS
from tests.faults import page
from worker.engine.faults import Fault

SETTINGS = {
    **SHORT_TIMERS,
    "OCTAVO_STALL_SECONDS": "6",
    "OCTAVO_PAGE_SECONDS": "10",
    "OCTAVO_FAKE_SLOTS": "64",
    "OCTAVO_FAKE_DELAY_SECONDS": "0.3",  # so that many are held at once
    "OCTAVO_FAKE_SLOW_SECONDS": "60",
    "OCTAVO_FAKE_FAULTS": (
        "hang,segfault,killed,out_of_memory,poison,device_error:1,wrong_answer,double_answer,"
        "endless,garbage,too_long,nonsense,slow,unreadable"
    ),
}

ENDS: dict[Fault | None, str | None] = {
    None: None,
    Fault.HANG: "page_crashed_engine",
    Fault.SEGFAULT: "page_crashed_engine",
    Fault.KILLED: "page_crashed_engine",
    Fault.OUT_OF_MEMORY: "page_crashed_engine",
    Fault.DEVICE_ERROR: None,  # it was the device, and another start mended it
    Fault.WRONG_ANSWER: None,
    Fault.DOUBLE_ANSWER: None,
    Fault.ENDLESS: None,  # cut off
    Fault.GARBAGE: None,  # cleaned
    Fault.TOO_LONG: "page_too_long",
    Fault.NONSENSE: "page_crashed_engine",  # an internal error, each time
    Fault.SLOW: "page_timeout",
    Fault.UNREADABLE: "page_unreadable",
}
"""With which code a page with that fault ends; None: it is read."""


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose engine has every fault that a page can ask for."""
    directory = tmp_path_factory.mktemp("faulty")
    state = directory / "state"
    state.mkdir()
    settings = {**SETTINGS, "OCTAVO_FAKE_STATE": str(state)}
    with Platform(directory, engine="fake", settings=settings) as platform:
        yield platform


def read(platform: Platform, pages: list[Image.Image]) -> tuple[Job, Document]:
    """What becomes of a document of these pages."""
    tiff = io.BytesIO()
    pages[0].save(tiff, "TIFF", save_all=True, append_images=pages[1:])
    tiff.seek(0)
    with Octavo(platform.url, platform.api_key) as octavo:
        job = octavo.wait(octavo.submit(tiff, name="faults.tiff").id, timeout=240)
        return job, octavo.document(job.id)


def deaths(platform: Platform) -> int:
    return (platform.logs / "engine-worker.log").read_text().count('"event": "engine_died"')


def test_each_fault_costs_its_own_page_and_ends_as_documented(faulty: Platform) -> None:
    job, document = read(faulty, [page(fault, text=str(fault), size=(300, 200)) for fault in ENDS])

    ends = {
        fault: read.error.code if read.error else None
        for fault, read in zip(ENDS, document.pages, strict=True)
    }
    assert ends == ENDS
    assert job.status == "partially_succeeded"
    texts = dict(zip(ENDS, (read.text for read in document.pages), strict=True))
    assert texts[Fault.ENDLESS].startswith("again again")
    assert texts[Fault.GARBAGE] == "nul , escape [2J, surrogate \ufffd, rest"
    for fault in (None, Fault.DEVICE_ERROR, Fault.WRONG_ANSWER, Fault.DOUBLE_ANSWER):
        assert texts[fault].startswith("page "), fault


def test_a_killer_among_200_pages_costs_itself_only(faulty: Platform) -> None:
    before = deaths(faulty)
    pages = [page(text=str(number), size=(200, 150)) for number in range(199)]
    pages.insert(100, page(Fault.POISON, size=(200, 150)))

    job, document = read(faulty, pages)

    bad = [read.page for read in document.pages if read.error is not None]
    assert bad == [101]
    assert document.pages[100].error is not None
    assert document.pages[100].error.code == "page_crashed_engine"
    assert (job.pages.succeeded, job.pages.failed) == (199, 1)
    assert 2 <= deaths(faulty) - before <= 5


def test_the_platform_reads_on(faulty: Platform) -> None:
    job, _ = read(faulty, [page(text="and on", size=(300, 200))])

    assert job.status == "succeeded"
