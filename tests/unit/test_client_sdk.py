"""What the SDK promises to a program: see the docstrings of `client.sdk` and `client.errors`."""

from __future__ import annotations

import ast
import io
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from client.errors import (
    ApiError,
    ConnectionFailed,
    JobCancelled,
    JobFailed,
    NotFinished,
    NotFound,
    OctavoError,
    Unauthenticated,
    WaitTimeout,
)
from client.event_stream import Event, EventDecoder
from client.models import DocumentPage, PageReset, PageText
from client.sdk import Octavo
from tests.unit.test_client_gateway import (
    JOB_ID,
    JOB_PATH,
    Answer,
    Drop,
    Gateway,
    Request,
    a_job,
    a_page,
    problem,
    scripted_gateway,
    stream,
)

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(30)


@pytest.fixture(scope="module")
def running_gateway() -> Iterator[Gateway]:
    with scripted_gateway() as gateway:
        yield gateway


@pytest.fixture(scope="module")
def octavo(running_gateway: Gateway) -> Iterator[Octavo]:
    with Octavo(running_gateway.url, "key_1", timeout=5) as octavo:
        yield octavo


@pytest.fixture
def gateway(running_gateway: Gateway) -> Gateway:
    running_gateway.forget()
    return running_gateway


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "contract.pdf"
    path.write_bytes(b"%PDF-1.7 \r\n--\x00\xff")
    return path


def parts_of(request: Request) -> list[Message]:
    """The parts of a multipart body, as another reader than ours sees them."""
    head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
    parts = message_from_bytes(head + request.body).get_payload()
    assert isinstance(parts, list)
    return [part for part in parts if isinstance(part, Message)]


# Submitting


def test_a_submission_is_one_form_with_the_options_before_the_file(
    gateway: Gateway, octavo: Octavo, document: Path
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))

    job = octavo.submit(document, pages="1-3", metadata={"case": "A-17"}, priority="batch")

    assert (job.id, job.status, job.is_final) == (JOB_ID, "queued", False)
    [request] = gateway.requests
    options, file = parts_of(request)
    assert options.get_param("name", header="Content-Disposition") == "options"
    assert options.get_content_type() == "application/json"
    assert options.get_payload(decode=True) == (
        b'{"pages": "1-3", "metadata": {"case": "A-17"}, "priority": "batch"}'
    )
    assert file.get_param("name", header="Content-Disposition") == "file"
    assert file.get_filename() == "contract.pdf"
    assert document.read_bytes() in request.body
    assert request.headers["Authorization"] == "Bearer key_1"
    assert request.headers["Content-Length"] == str(len(request.body))


def test_a_password_travels_in_the_body_only(
    gateway: Gateway, octavo: Octavo, document: Path
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))

    octavo.submit(document, password="pässword")

    [request] = gateway.requests
    options, _ = parts_of(request)
    assert options.get_payload(decode=True) == b'{"password": "p\\u00e4ssword"}'
    assert request.query == {}
    assert "ssword" not in str(request.headers)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ('a"; name="options".pdf', "a%22; name=%22options%22.pdf"),
        ("a\r\nX-Evil: 1\r\n\r\n.pdf", "a%0D%0AX-Evil: 1%0D%0A%0D%0A.pdf"),
        ("a\\\\b\\", "a\\\\b\\"),
        ("no text \udcff.pdf", "no text ?.pdf"),
    ],
    ids=["quote", "newline", "backslash", "no text"],
)
def test_a_files_name_cannot_end_its_header(
    gateway: Gateway, octavo: Octavo, document: Path, name: str, told: str
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))

    octavo.submit(document, name=name)

    _, file = parts_of(gateway.requests[0])
    assert file.keys() == ["Content-Disposition", "Content-Type"]
    assert file.get_param("name", header="Content-Disposition") == "file"
    assert file.get_filename() == told
    assert document.read_bytes() in gateway.requests[0].body


def test_the_progress_of_a_submission_is_told_in_bytes_of_the_file(
    gateway: Gateway, octavo: Octavo
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    told: list[int] = []

    octavo.submit(io.BytesIO(bytes(150_000)), on_bytes=told.append)

    assert told == [65_536, 131_072, 150_000]


def test_a_file_is_read_from_where_it_stands_and_stays_open(
    gateway: Gateway, octavo: Octavo
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    file = io.BytesIO(b"skipped, sent")
    file.seek(8)

    octavo.submit(file)

    _, part = parts_of(gateway.requests[0])
    assert part.get_payload(decode=True) == b" sent"
    assert part.get_filename() == "document"
    assert not file.closed


def test_a_pipe_is_sent_without_a_length(gateway: Gateway, octavo: Octavo) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    reader, writer = os.pipe()
    os.write(writer, b"from a pipe")
    os.close(writer)

    with os.fdopen(reader, "rb") as pipe:
        octavo.submit(pipe)

    assert gateway.requests[0].headers["Transfer-Encoding"] == "chunked"
    assert parts_of(gateway.requests[0])[1].get_payload(decode=True) == b"from a pipe"


@pytest.mark.parametrize("bytes_later", [100_000, 300_000], ids=["shorter", "longer"])
def test_a_file_that_changes_while_it_is_sent_makes_no_job(
    gateway: Gateway, octavo: Octavo, tmp_path: Path, bytes_later: int
) -> None:
    path = tmp_path / "growing.pdf"
    path.write_bytes(bytes(200_000))

    with pytest.raises(OctavoError, match="changed while it was sent"):
        octavo.submit(path, on_bytes=lambda _: os.truncate(path, bytes_later))

    assert gateway.requests == []


def test_a_long_document_is_never_whole_in_memory(gateway: Gateway, tmp_path: Path) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))
    for name, length in (("short.pdf", 1), ("long.pdf", 50_000_000)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(length)
    program = """
import resource, sys
from client.sdk import Octavo
def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with Octavo(sys.argv[1], "key_1") as octavo:
    octavo.submit("short.pdf")
    before = peak_kib()
    octavo.submit("long.pdf")
    print(peak_kib() - before)
"""

    grown_kib = subprocess.run(
        [sys.executable, "-c", program, gateway.url],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout

    assert gateway.requests[1].body_bytes > 50_000_000
    assert int(grown_kib) < 4_000


def keys_of(requests: list[Request]) -> list[str]:
    return [request.headers["Idempotency-Key"] for request in requests]


@pytest.mark.parametrize(
    "first",
    [Drop(), Answer(502, "<html>"), Answer(504, "<html>"), problem(409, "idempotency_in_flight")],
    ids=["lost", "502", "504", "under way"],
)
def test_a_submission_that_may_have_arrived_is_sent_again_under_its_key(
    gateway: Gateway, octavo: Octavo, document: Path, first: Answer | Drop
) -> None:
    gateway.on("POST", "/v1/jobs", first, Answer(202, a_job()))

    assert octavo.submit(document).id == JOB_ID

    one, other = keys_of(gateway.requests)
    assert one == other


def test_each_submission_has_a_key_of_its_own(
    gateway: Gateway, octavo: Octavo, document: Path
) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))

    for _ in range(3):
        octavo.submit(document)

    assert len(set(keys_of(gateway.requests))) == 3


def test_a_program_may_choose_the_key(gateway: Gateway, octavo: Octavo, document: Path) -> None:
    gateway.on("POST", "/v1/jobs", Answer(202, a_job()))

    octavo.submit(document, idempotency_key="case A-17")

    assert keys_of(gateway.requests) == ["case A-17"]


@pytest.mark.parametrize(
    ("status", "code"), [(500, "internal_error"), (422, "idempotency_mismatch")]
)
def test_a_submission_that_failed_on_the_server_is_not_sent_again(
    gateway: Gateway, octavo: Octavo, document: Path, status: int, code: str
) -> None:
    gateway.on("POST", "/v1/jobs", problem(status, code), Answer(202, a_job()))

    with pytest.raises(ApiError):
        octavo.submit(document)

    assert len(gateway.requests) == 1


def test_a_submission_that_was_turned_away_is_sent_again_when_the_server_asks_for_it(
    gateway: Gateway, octavo: Octavo, document: Path
) -> None:
    limited, busy = problem(429, "rate_limited"), problem(503, "overloaded", retry_after="1")
    gateway.on("POST", "/v1/jobs", limited, busy, Answer(202, a_job()))

    assert octavo.submit(document).id == JOB_ID

    _, second, third = gateway.requests
    assert third.at - second.at >= 1
    assert all(document.read_bytes() in request.body for request in gateway.requests)


def test_a_pipe_that_was_turned_away_cannot_be_sent_again(gateway: Gateway, octavo: Octavo) -> None:
    gateway.on("POST", "/v1/jobs", problem(503, "overloaded"), Answer(202, a_job()))
    reader, writer = os.pipe()
    os.close(writer)

    with os.fdopen(reader, "rb") as pipe, pytest.raises(ApiError):
        octavo.submit(pipe)

    assert len(gateway.requests) == 1


# Asking again


def test_a_question_is_asked_again_after_a_lost_connection(
    gateway: Gateway, octavo: Octavo
) -> None:
    gateway.on("GET", JOB_PATH, Drop(), Answer(502, "<html>"), Answer(200, a_job()))

    assert octavo.job(JOB_ID).id == JOB_ID


def test_a_server_that_wants_a_long_rest_gets_it(gateway: Gateway, octavo: Octavo) -> None:
    gateway.on("GET", JOB_PATH, problem(503, "overloaded", retry_after="300"))

    with pytest.raises(ApiError) as raised:
        octavo.job(JOB_ID)

    assert (raised.value.code, raised.value.retry_after_seconds) == ("overloaded", 300)
    assert len(gateway.requests) == 1


def test_a_date_may_say_when_to_come_back(gateway: Gateway, octavo: Octavo) -> None:
    at = "Fri, 31 Dec 2100 23:59:59 GMT"
    gateway.on("GET", JOB_PATH, problem(503, "overloaded", retry_after=at))

    with pytest.raises(ApiError) as raised:
        octavo.job(JOB_ID)

    assert (raised.value.retry_after_seconds or 0) > 1_000_000


@pytest.mark.parametrize(
    "rest", ["", "soon", "-1", "9" * 5_000], ids=["no", "word", "past", "long"]
)
def test_a_rest_that_is_no_number_counts_as_none(
    gateway: Gateway, octavo: Octavo, rest: str
) -> None:
    gateway.on("GET", JOB_PATH, problem(503, "overloaded", retry_after=rest), Answer(200, a_job()))

    assert octavo.job(JOB_ID).id == JOB_ID


def test_a_server_that_is_not_there_is_said_within_seconds() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        began = time.monotonic()

        with (
            Octavo(f"http://127.0.0.1:{port}", "key_1") as octavo,
            pytest.raises(ConnectionFailed, match=f"no answer from http://127.0.0.1:{port}"),
        ):
            octavo.job(JOB_ID)

    assert time.monotonic() - began < 5


# Watching


def test_a_watch_shows_each_change_once_until_the_job_is_final(
    gateway: Gateway, octavo: Octavo
) -> None:
    gateway.on(
        "GET",
        JOB_PATH,
        Answer(200, a_job("queued"), {"ETag": '"1"'}),
        Answer(304, headers={"ETag": '"1"'}),
        Answer(200, a_job("running"), {"ETag": '"2"'}),
        Answer(200, a_job("succeeded"), {"ETag": '"3"'}),
    )

    assert [job.status for job in octavo.watch(JOB_ID)] == ["queued", "running", "succeeded"]

    first, *later = gateway.requests
    assert (first.query, first.headers["If-None-Match"]) == ({}, None)
    assert [request.headers["If-None-Match"] for request in later] == ['"1"', '"1"', '"2"']
    assert [request.query for request in later] == [{"wait": "20"}] * 3


def test_a_watch_outlives_lost_connections_and_a_server_that_is_busy(
    gateway: Gateway, octavo: Octavo
) -> None:
    gateway.on(
        "GET",
        JOB_PATH,
        Answer(200, a_job("running"), {"ETag": '"1"'}),
        Drop(),
        Answer(504, "<html>"),
        Answer(304),
        problem(503, "overloaded", retry_after="1"),
        Answer(304),
        problem(429, "rate_limited"),
        Answer(200, a_job("succeeded"), {"ETag": '"2"'}),
    )

    assert [job.status for job in octavo.watch(JOB_ID)] == ["running", "succeeded"]

    busy, after = gateway.requests[4:6]
    assert after.at - busy.at >= 1


def test_a_server_that_does_not_hold_its_answers_back_is_not_flooded(
    gateway: Gateway, octavo: Octavo
) -> None:
    ends_at = time.monotonic() + 0.8
    gateway.on_each(
        "GET",
        JOB_PATH,
        lambda request: Answer(200, a_job("running" if request.at < ends_at else "succeeded")),
    )

    assert [job.status for job in octavo.watch(JOB_ID)] == ["running", "succeeded"]
    assert len(gateway.requests) <= 5


def test_a_watch_ends_with_the_refusal_of_a_job_that_is_gone(
    gateway: Gateway, octavo: Octavo
) -> None:
    gateway.on("GET", JOB_PATH, Answer(200, a_job("running")), problem(404, "not_found"))

    watch = octavo.watch(JOB_ID)

    assert next(watch).status == "running"
    with pytest.raises(NotFound):
        next(watch)


@pytest.mark.parametrize("status", ["succeeded", "partially_succeeded", "failed", "cancelled"])
def test_waiting_ends_in_any_final_state(gateway: Gateway, octavo: Octavo, status: str) -> None:
    gateway.on("GET", JOB_PATH, Answer(200, a_job("running")), Answer(200, a_job(status)))

    assert octavo.wait(JOB_ID, timeout=5).status == status


def test_waiting_takes_no_longer_than_it_may(gateway: Gateway, octavo: Octavo) -> None:
    gateway.on("GET", JOB_PATH, Answer(200, a_job("running")))
    began = time.monotonic()

    with pytest.raises(WaitTimeout, match="within 1 seconds") as raised:
        octavo.wait(JOB_ID, timeout=1)

    assert raised.value.job.status == "running"
    assert 1 <= time.monotonic() - began < 10
    assert all(int(request.query.get("wait", 0)) <= 1 for request in gateway.requests)


def test_a_state_of_a_newer_server_is_final_once_the_job_has_ended(
    gateway: Gateway, octavo: Octavo
) -> None:
    ended = a_job("archived", new_field={"a": 1})
    gateway.on("GET", JOB_PATH, Answer(200, a_job("paused", finished_at=None)), Answer(200, ended))

    assert [job.status for job in octavo.watch(JOB_ID)] == ["paused", "archived"]


# Lists and results


def test_all_jobs_are_listed_from_cursor_to_cursor(gateway: Gateway, octavo: Octavo) -> None:
    gateway.on(
        "GET",
        "/v1/jobs",
        Answer(
            200, {"data": [a_job(job_id="job_3"), a_job(job_id="job_2")], "next_cursor": "c+/="}
        ),
        Answer(200, {"data": [a_job(job_id="job_1")], "next_cursor": None}),
    )

    assert [job.id for job in octavo.jobs(status="queued")] == ["job_3", "job_2", "job_1"]
    assert [request.query for request in gateway.requests] == [
        {"status": "queued", "limit": "100"},
        {"status": "queued", "limit": "100", "cursor": "c+/="},
    ]


def test_all_pages_are_listed_from_cursor_to_cursor(gateway: Gateway, octavo: Octavo) -> None:
    part = {"job_id": JOB_ID, "status": "running", "total": 2}
    gateway.on(
        "GET",
        f"{JOB_PATH}/pages",
        Answer(200, {**part, "data": [a_page(1)], "next_cursor": "c"}),
        Answer(200, {**part, "data": [a_page(2, status="failed")], "next_cursor": None}),
    )

    assert [(page.page, page.status) for page in octavo.pages(JOB_ID)] == [
        (1, "succeeded"),
        (2, "failed"),
    ]


def test_a_page_is_read_while_its_job_runs(gateway: Gateway, octavo: Octavo) -> None:
    page = {"page": 2, "status": "succeeded", "markdown": "# Zwei", "blocks": []}
    gateway.on("GET", f"{JOB_PATH}/pages/2", problem(409, "page_not_finished"), Answer(200, page))

    with pytest.raises(NotFinished):
        octavo.page(JOB_ID, 2)
    assert octavo.page(JOB_ID, 2).markdown == "# Zwei"


def test_a_figure_of_a_page_comes_as_it_is(gateway: Gateway, octavo: Octavo) -> None:
    path = f"{JOB_PATH}/pages/2/figures/1"
    gateway.on("GET", path, problem(409, "page_not_finished"), Answer(200, "a picture"))

    with pytest.raises(NotFinished):
        octavo.figure(JOB_ID, 2, 1)
    assert octavo.figure(JOB_ID, 2, 1) == b"a picture"


def test_a_result_comes_in_the_format_asked_for(gateway: Gateway, octavo: Octavo) -> None:
    gateway.on_each(
        "GET", f"{JOB_PATH}/result", lambda it: Answer(200, f"ä\0 {it.query['format']}")
    )

    assert octavo.result(JOB_ID) == "ä\0 markdown"
    assert octavo.result(JOB_ID, format="text") == "ä\0 text"


def test_a_document_has_its_blocks_and_boxes(gateway: Gateway, octavo: Octavo) -> None:
    block = {
        "order": 0,
        "kind": "seal",
        "text": "§",
        "box": {"x0": 1, "y0": 2, "x1": 3, "y1": 4},
        "box_fraction": [0.1, 0.2, 0.3, 0.4],
    }
    document = {
        "schema": "octavo.document/1",
        "job_id": JOB_ID,
        "status": "succeeded",
        "source": a_job()["source"],
        "content_is_untrusted": True,
        "pages": [{"page": 1, "status": "succeeded", "blocks": [block], "new_field": 1}],
        "usage": {"engine_seconds": 0.5},
    }
    gateway.on("GET", f"{JOB_PATH}/result", Answer(200, document))

    [page] = octavo.document(JOB_ID).pages

    assert (page.blocks[0].kind, page.blocks[0].text) == ("seal", "§")
    assert page.blocks[0].box_fraction == (0.1, 0.2, 0.3, 0.4)


def test_a_job_that_runs_has_no_result_yet(gateway: Gateway, octavo: Octavo) -> None:
    still = Answer(202, a_job("running"), {"Retry-After": "7"})
    gateway.on("GET", f"{JOB_PATH}/result", still)

    with pytest.raises(NotFinished) as raised:
        octavo.result(JOB_ID)
    with pytest.raises(NotFinished):
        octavo.document(JOB_ID)

    assert raised.value.retry_after_seconds == 7


# What changes a job


def test_jobs_are_cancelled_retried_and_deleted(gateway: Gateway, octavo: Octavo) -> None:
    receipt = {"id": JOB_ID, "deleted_at": "2026-11-21T10:05:00Z", "rows": 9, "objects": 4}
    gateway.on("POST", f"{JOB_PATH}/cancel", Answer(200, a_job("cancelled")))
    gateway.on("POST", f"{JOB_PATH}/retry", Answer(202, a_job(job_id="job_2", retry_of=JOB_ID)))
    gateway.on("DELETE", JOB_PATH, Answer(202, {**receipt, "purged_at": None}))

    assert octavo.cancel(JOB_ID).status == "cancelled"
    assert octavo.retry(JOB_ID, pages="3-5").retry_of == JOB_ID
    assert octavo.delete(JOB_ID).objects == 4

    _, retry, _ = gateway.requests
    assert retry.body == b'{"pages":"3-5"}'


def test_a_retry_that_may_have_arrived_is_sent_again_under_its_key(
    gateway: Gateway, octavo: Octavo
) -> None:
    gateway.on("POST", f"{JOB_PATH}/retry", Drop(), Answer(202, a_job()))

    assert octavo.retry(JOB_ID).id == JOB_ID

    one, other = keys_of(gateway.requests)
    assert one == other


# Refusals


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "unauthenticated", Unauthenticated),
        (404, "not_found", NotFound),
        (409, "job_not_finished", NotFinished),
        (409, "job_failed", JobFailed),
        (409, "job_cancelled", JobCancelled),
        (410, "result_expired", ApiError),
        (418, "a_code_of_a_newer_server", ApiError),
    ],
)
def test_a_refusal_is_raised_as_what_it_is(
    gateway: Gateway, octavo: Octavo, status: int, code: str, kind: type[ApiError]
) -> None:
    gateway.on("GET", f"{JOB_PATH}/result", problem(status, code, "what was wrong"))

    with pytest.raises(ApiError, match="what was wrong") as raised:
        octavo.result(JOB_ID)

    assert type(raised.value) is kind
    assert (raised.value.status, raised.value.code) == (status, code)
    assert (raised.value.title, raised.value.detail) == (f"The title of {code}.", "what was wrong")
    assert (raised.value.retryable, raised.value.request_id) == (False, "req_1")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "<html>welcome</html>"),
        Answer(200, {"id": "job_1"}),
        Answer(200, a_job(job_id="../../v1/jobs")),
        Answer(403, "<html>forbidden</html>"),
        Answer(404, {"detail": "Not Found"}),
    ],
    ids=["page", "half a job", "no id", "refusal of a proxy", "another API"],
)
def test_an_answer_that_no_octavo_gives_is_said_to_be_one(
    gateway: Gateway, octavo: Octavo, answer: Answer
) -> None:
    gateway.on("GET", JOB_PATH, answer)

    with pytest.raises(ApiError, match=f"HTTP {answer.status}") as raised:
        octavo.job(JOB_ID)

    assert (raised.value.code, raised.value.status) == ("unexpected_answer", answer.status)


def test_the_key_does_not_follow_a_redirect(gateway: Gateway, octavo: Octavo) -> None:
    with scripted_gateway() as elsewhere:
        location = f"{elsewhere.url}{JOB_PATH}"
        gateway.on("GET", JOB_PATH, Answer(307, headers={"Location": location}))

        with pytest.raises(ApiError, match=elsewhere.url):
            octavo.job(JOB_ID)

        assert elsewhere.requests == []


@pytest.mark.parametrize("job_id", ["", ".", "..", "../keys", "a/b", "a?b", "a#b", "a%2fb", "a\n"])
def test_an_id_leads_nowhere_else(gateway: Gateway, octavo: Octavo, job_id: str) -> None:
    with pytest.raises(ValueError, match="is not the id of a job"):
        octavo.delete(job_id)

    assert gateway.requests == []


# The server's address and key


def test_a_server_may_live_below_a_path(gateway: Gateway) -> None:
    gateway.on("GET", f"/ocr{JOB_PATH}", Answer(200, a_job()))

    with Octavo(f"{gateway.url}/ocr/", "key_1") as octavo:
        assert octavo.job(JOB_ID).id == JOB_ID


@pytest.mark.parametrize(
    "url",
    ["", "ocr.example", "ftp://ocr.example", "https://", "https://a:b@ocr.example", "http://h:x"],
)
def test_an_address_that_cannot_be_right_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="the server's address"):
        Octavo(url, "key_1")


@pytest.mark.parametrize("key", ["", " ", "two words", "schlüssel", "a\r\nX-Evil: 1"])
def test_a_key_that_cannot_be_right_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(ValueError, match="the API key") as raised:
        Octavo("https://ocr.example", key)

    assert not key.strip() or key not in str(raised.value)


def test_the_environment_may_say_where_the_server_is(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.on("GET", JOB_PATH, Answer(200, a_job()))
    monkeypatch.setenv("OCTAVO_URL", gateway.url)
    monkeypatch.setenv("OCTAVO_API_KEY", "key_2\n")

    with Octavo.from_environment() as octavo:
        octavo.job(JOB_ID)

    assert gateway.requests[0].headers["Authorization"] == "Bearer key_2"
    monkeypatch.delenv("OCTAVO_API_KEY")
    with pytest.raises(ValueError, match="OCTAVO_API_KEY is not set"):
        Octavo.from_environment()


# The client stands alone


def test_the_client_loads_nothing_of_the_server() -> None:
    program = """
import client.cli, client.sdk, sys
print(sorted({name.partition(".")[0] for name in sys.modules}))
"""
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout

    assert "'httpx'" in loaded
    for name in ("shared", "api", "worker", "deploy", "sqlalchemy", "fastapi", "celery", "boto3"):
        assert f"'{name}'" not in loaded


def test_the_client_imports_only_what_its_package_depends_on() -> None:
    allowed = {*sys.stdlib_module_names, "client", "click", "httpx", "pydantic", "rich"}

    for path in (ROOT / "client").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert {name.partition(".")[0] for name in names} <= allowed, path


# A page that is watched

EVENTS = f"{JOB_PATH}/pages/2/events"
READ: dict[str, Any] = {"page": 2, "status": "succeeded", "markdown": "# Zwei", "text": "Zwei"}


def said(text: str, attempt: int = 1) -> tuple[str, dict[str, Any]]:
    return "text", {"text": text, "attempt": attempt}


def test_a_page_is_told_as_it_is_read_and_comes_in_the_end(
    gateway: Gateway, octavo: Octavo
) -> None:
    news = [said("# Zw"), said("ei"), ("reset", {"attempt": 2}), ("fresh", {}), said("# Z", 2)]
    gateway.on("GET", EVENTS, stream(*news, ("page", READ), said("never")))

    *events, page = octavo.page_events(JOB_ID, 2)

    assert events == [
        PageText(text="# Zw", attempt=1),
        PageText(text="ei", attempt=1),
        PageReset(attempt=2),
        PageText(text="# Z", attempt=2),
    ]
    assert isinstance(page, DocumentPage)
    assert page.markdown == "# Zwei"


def test_a_stream_that_ends_goes_on_where_it_was(gateway: Gateway, octavo: Octavo) -> None:
    broken = "id: 77\nevent: text\ndata: {"
    gateway.on("GET", EVENTS, stream(said("a"), broken=broken), Drop(), stream(("page", READ)))

    text, page = octavo.page_events(JOB_ID, 2)

    assert (text, isinstance(page, DocumentPage)) == (PageText(text="a", attempt=1), True)
    asked = [request.headers.get("Last-Event-ID") for request in gateway.requests]
    assert asked == [None, "1", "1"]


def test_a_page_that_will_not_be_is_an_error(gateway: Gateway, octavo: Octavo) -> None:
    gone = problem(410, "job_deleted", "It is gone.").body
    assert isinstance(gone, dict)
    gateway.on("GET", EVENTS, stream(said("a"), ("problem", gone)))

    with pytest.raises(ApiError) as raised:
        list(octavo.page_events(JOB_ID, 2))

    assert (raised.value.code, raised.value.status) == ("job_deleted", 410)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(404, "not_found"), "not_found"),
        (Answer(200, "<html>"), "unexpected_answer"),
        (stream(("text", {"txt": 1})), "unexpected_answer"),
        (stream(("page", {"page": "two"})), "unexpected_answer"),
    ],
    ids=["refusal", "no stream", "no text", "no page"],
)
def test_what_is_no_stream_of_a_page_is_an_error(
    gateway: Gateway, octavo: Octavo, answer: Answer, code: str
) -> None:
    gateway.on("GET", EVENTS, answer)

    with pytest.raises(ApiError) as raised:
        list(octavo.page_events(JOB_ID, 2))

    assert raised.value.code == code


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_events_are_read_however_they_were_cut(size: int, newline: str) -> None:
    body = (
        ": hi\n\nretry: 2500\n\nevent: a\ndata: eins\ndata:zwei\nid: 7\n\nid\ndata\n\nevent: b\n\n"
    )
    raw = (body.replace("\n", newline) + "data: käse").encode()
    decoder = EventDecoder()

    events = [e for at in range(0, len(raw), size) for e in decoder.feed(raw[at : at + size])]

    assert events == [Event("a", "eins\nzwei"), Event("message", "")]
    assert (decoder.retry_seconds, decoder.last_id) == (2.5, "")
    decoder.restart()
    assert list(decoder.feed(b"data: x\n\n")) == [Event("message", "x")]
