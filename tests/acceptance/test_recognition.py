"""The default engine reads the sample documents, whose text is known."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from client.sdk import Octavo
from deploy.local import Platform
from tests.error_rate import character_error_rate

SAMPLES = Path(__file__).parents[2] / "deploy/samples"
CLEAN = 0.02
"""What the character error rate of a clean page may be."""
NOISY = 0.05
"""And of one that is turned, blurred or noisy."""

LIMITS = {
    "octavo.pdf": CLEAN,
    "receipt.png": CLEAN,
    "rotated.png": CLEAN,
    "scan.jpg": NOISY,
    "fax.tiff": NOISY,
}


@pytest.fixture(scope="module")
def paddle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Octavo]:
    with (
        Platform(tmp_path_factory.mktemp("paddle"), engine_workers=2) as platform,
        Octavo(platform.url, platform.api_key) as client,
    ):
        yield client


@pytest.mark.parametrize("name", LIMITS)
def test_a_sample_is_read_right(paddle: Octavo, name: str) -> None:
    truth = (SAMPLES / name).with_suffix(".txt").read_text().split("\f")

    job = paddle.wait(paddle.submit(SAMPLES / name).id, timeout=120)

    assert job.status == "succeeded"
    pages = paddle.document(job.id).pages
    rates = [character_error_rate(page.text, said) for page, said in zip(pages, truth, strict=True)]
    assert max(rates) <= LIMITS[name], rates


def test_a_page_that_lies_on_its_head_is_turned(paddle: Octavo) -> None:
    job = paddle.wait(paddle.submit(SAMPLES / "rotated.png").id, timeout=120)

    [page] = paddle.document(job.id).pages

    assert page.rotation == 180
    assert not page.needs_review
