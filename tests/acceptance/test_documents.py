"""Documents of every kind go in, and each comes to the end that is documented."""

import io
from pathlib import Path

import pytest

from client.errors import ApiError, JobFailed
from client.sdk import Octavo
from tests import documents

GOOD = {
    "pdf": (documents.pdf(pages=2), 2),
    "png": (documents.png(), 1),
    "jpeg": (documents.jpeg(), 1),
    "tiff": (documents.tiff("one", "two", "three"), 3),
    "webp": (documents.webp("one"), 1),
    "bmp": (documents.bmp(), 1),
    "gif": (documents.gif("one", "two"), 2),
    "heic": (documents.heic(), 1),
    "16-bit png": (documents.deep_png(), 1),
    "cmyk jpeg": (documents.cmyk_jpeg(), 1),
    "pdf with an owner's password": (documents.owner_protected_pdf(), 1),
}

BAD = {
    "truncated pdf": (documents.pdf(pages=2)[:200], "document_invalid"),
    "truncated jpeg": (documents.truncated(documents.jpeg()), "document_invalid"),
    "encrypted pdf": (documents.encrypted_pdf("sesame"), "document_encrypted"),
    "too many pages": (documents.pdf(pages=701), "too_many_pages"),
    "form bomb": (documents.form_bomb_pdf(), "document_too_expensive"),
    "operator bomb": (documents.operator_bomb_pdf(), "document_too_expensive"),
    "1 x 65000": (documents.wide_png(), "image_dimensions"),
    "50000 x 50000": (documents.huge_png(), "image_dimensions"),
}


@pytest.mark.parametrize("kind", GOOD)
def test_every_type_of_document_is_read(octavo: Octavo, kind: str) -> None:
    body, page_count = GOOD[kind]

    job = octavo.submit(io.BytesIO(body), name="name.says.nothing")
    job = octavo.wait(job.id, timeout=60)

    assert (job.status, job.pages.total) == ("succeeded", page_count), job.error
    document = octavo.document(job.id)
    assert [page.page for page in document.pages] == list(range(1, page_count + 1))
    assert all(page.text for page in document.pages)


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_document_ends_with_a_typed_error(octavo: Octavo, kind: str) -> None:
    body, code = BAD[kind]

    job = octavo.submit(io.BytesIO(body), name="bad")
    job = octavo.wait(job.id, timeout=60)

    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == code
    with pytest.raises(JobFailed):
        octavo.result(job.id)


@pytest.mark.parametrize(
    ("body", "code"), [(b"", "empty_upload"), (b"plain text", "unsupported_format")]
)
def test_what_is_no_document_is_refused(octavo: Octavo, body: bytes, code: str) -> None:
    with pytest.raises(ApiError) as refused:
        octavo.submit(io.BytesIO(body), name="../../etc/passwd")

    assert refused.value.code == code


def test_an_encrypted_document_opens_with_its_password(octavo: Octavo) -> None:
    body = documents.encrypted_pdf("sesame")

    job = octavo.submit(io.BytesIO(body), name="a.pdf", password="sesame")

    assert octavo.wait(job.id, timeout=60).status == "succeeded"


def test_a_corrupt_page_costs_that_page_only(octavo: Octavo) -> None:
    body = documents.pdf_with_broken_page()

    job = octavo.submit(io.BytesIO(body), name="a.pdf")
    job = octavo.wait(job.id, timeout=60)

    assert job.status == "partially_succeeded"
    assert job.pages.failed == 1
    pages = octavo.document(job.id).pages
    [bad] = [page for page in pages if page.error is not None]
    assert bad.text == ""
    assert all(page.text for page in pages if page is not bad)


def test_a_bomb_among_pages_costs_that_page_only(octavo: Octavo) -> None:
    job = octavo.submit(io.BytesIO(documents.pdf_with_bomb_page()), name="a.pdf")
    job = octavo.wait(job.id, timeout=90)

    assert job.status == "partially_succeeded"
    errors = [page.error.code for page in octavo.document(job.id).pages if page.error]
    assert errors == ["document_too_expensive"]


def test_a_page_range_reads_those_pages_only(octavo: Octavo) -> None:
    job = octavo.submit(io.BytesIO(documents.pdf(pages=5)), name="a.pdf", pages="2,4-9")
    job = octavo.wait(job.id, timeout=60)

    assert [page.page for page in octavo.document(job.id).pages] == [2, 4, 5]
    assert any("5 pages" in warning for warning in job.warnings)


def test_a_page_range_past_the_end_is_an_error(octavo: Octavo) -> None:
    job = octavo.submit(io.BytesIO(documents.pdf(pages=2)), name="a.pdf", pages="7-")
    job = octavo.wait(job.id, timeout=60)

    assert job.error is not None
    assert job.error.code == "invalid_page_range"


def test_a_retry_reads_the_failed_pages_and_keeps_the_good(octavo: Octavo) -> None:
    first = octavo.submit(io.BytesIO(documents.pdf_with_broken_page()), name="a.pdf")
    first = octavo.wait(first.id, timeout=60)

    again = octavo.wait(octavo.retry(first.id).id, timeout=60)

    assert again.retry_of == first.id
    assert again.status == "partially_succeeded"
    assert again.pages == first.pages
    assert octavo.result(again.id) == octavo.result(first.id)


def test_cancelling_stops_a_job_within_a_heartbeat(octavo: Octavo) -> None:
    job = octavo.submit(io.BytesIO(documents.pdf(pages=300)), name="a.pdf")
    for seen in octavo.watch(job.id):
        if seen.pages.succeeded >= 3:
            break

    octavo.cancel(job.id)

    job = octavo.job(job.id)
    assert job.status == "cancelled"
    assert 3 <= job.pages.succeeded < 300
    assert octavo.page(job.id, 1).text


def test_deleting_leaves_nothing(octavo: Octavo, document: Path) -> None:
    document.write_bytes(documents.pdf(pages=2))
    job = octavo.submit(document)
    octavo.wait(job.id, timeout=60)

    receipt = octavo.delete(job.id)
    while receipt.purged_at is None:
        receipt = octavo.delete(job.id)

    # The source, two page images, three formats; the job, its pages, their work and recognitions.
    assert receipt.objects == 6
    assert receipt.rows == 1 + 2 + 4 + 2
    with pytest.raises(ApiError) as gone:
        octavo.job(job.id)
    assert gone.value.code == "job_deleted"
