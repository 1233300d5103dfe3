"""The native API, as a client sees it, on the real store and database. No worker runs here."""

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import admission
from api.known_callers import KEPT_SECONDS
from shared import jobs, keys, new_pages, pages, quotas, storage
from shared.config import settings
from shared.db import transaction
from shared.errors import PageTimeout
from shared.models import Job
from shared.status import JobStatus, WorkKind
from tests import documents
from tests.factory import authorization, claimed, recognition, work_of

PDF = documents.pdf(pages=3)
FILE_PART = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'
    + PDF
    + b"\r\n--b--\r\n"
)


def submit(gateway: TestClient, body: bytes = PDF, **options: str) -> dict[str, Any]:
    answer = gateway.post("/v1/jobs", content=body, params=options)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job


def row_of(job: dict[str, Any]) -> Job:
    with transaction() as session:
        row = session.get(Job, jobs.parse_id(job["id"]))
    assert row is not None
    return row


def run(job: dict[str, Any], *, good: int, failed: int = 0) -> None:
    """Do to a job what the workers do, with pages that say which they are."""
    with transaction() as session:
        row = session.get_one(Job, jobs.parse_id(job["id"]))
        held = claimed(session, work_of(session, row, WorkKind.PREPARE)[0])
        new_pages.begin(session, held, row, good + failed)
        numbers = range(1, good + failed + 1)
        new_pages.add(session, held, [new_pages.Rendered(n, f"{n}.jpg", 100, 200) for n in numbers])
        for unit in work_of(session, row, WorkKind.RECOGNISE):
            if unit.page_no <= good:
                pages.succeed(session, claimed(session, unit), recognition(f"page {unit.page_no}"))
            else:
                pages.fail(session, claimed(session, unit), PageTimeout())


def assemble(job: dict[str, Any]) -> None:
    row = row_of(job)
    with transaction() as session:
        held = claimed(session, work_of(session, row, WorkKind.ASSEMBLE)[0])
    if row.pages_succeeded:
        key = storage.result_key(row.tenant, row.id, held.attempt, "md")
        storage.put(key, b"# read")
    with transaction() as session:
        if row.pages_succeeded:
            assert jobs.finish(session, held, jobs.outcome(row))
        else:
            assert jobs.fail(session, held, PageTimeout())


class TestSubmitting:
    def test_a_raw_body_becomes_a_job_and_an_object(self, gateway: TestClient) -> None:
        answer = gateway.post(
            "/v1/jobs",
            content=PDF,
            params={"pages": "1-2", "filename": "a.pdf", "metadata.case": "A-17"},
        )

        job = answer.json()
        assert answer.status_code == 202
        assert answer.headers["Location"] == job["links"]["self"]
        assert int(answer.headers["Retry-After"]) >= 1
        assert job["status"] == "queued"
        assert job["metadata"] == {"case": "A-17"}
        assert job["options"]["pages"] == "1-2"
        assert job["source"] == {
            "name": "a.pdf",
            "media_type": "application/pdf",
            "bytes": len(PDF),
            "sha256": hashlib.sha256(PDF).hexdigest(),
        }
        row = row_of(job)
        assert storage.get(storage.source_key(row.tenant, row.id)) == PDF

    def test_multipart_takes_options_before_the_file(self, gateway: TestClient) -> None:
        answer = gateway.post(
            "/v1/jobs",
            files=[
                ("options", (None, '{"task": "text", "metadata": {"k": "v"}}')),
                ("file", ("scan.pdf", PDF)),
            ],
        )

        job = answer.json()
        assert answer.status_code == 202
        assert (job["source"]["name"], job["options"]["task"]) == ("scan.pdf", "text")
        assert job["metadata"] == {"k": "v"}

    def test_a_mode_is_kept_and_auto_is_the_default(self, gateway: TestClient) -> None:
        assert submit(gateway)["options"]["mode"] == "auto"
        assert submit(gateway, mode="gundam")["options"]["mode"] == "gundam"

    def test_words_to_locate_are_kept(self, gateway: TestClient) -> None:
        options = submit(gateway, task="locate", phrase="Total")["options"]

        assert (options["task"], options["phrase"]) == ("locate", "Total")

    def test_a_task_may_come_as_json_and_its_words_as_a_field(self, gateway: TestClient) -> None:
        answer = gateway.post(
            "/v1/jobs",
            files=[
                ("options", (None, '{"task": "locate"}')),
                ("phrase", (None, "Total")),
                ("file", ("a.pdf", PDF)),
            ],
        )

        assert answer.json()["options"]["phrase"] == "Total"

    def test_an_engine_without_modes_ignores_them(self, gateway: TestClient) -> None:
        assert submit(gateway, engine="paddle", mode="tiny")["options"]["mode"] == "tiny"

    def test_multipart_takes_options_as_fields(self, gateway: TestClient) -> None:
        answer = gateway.post(
            "/v1/jobs",
            files=[("pages", (None, "2-")), ("metadata.k", (None, "v")), ("file", ("a.pdf", PDF))],
        )

        assert answer.json()["options"]["pages"] == "2-"
        assert answer.json()["metadata"] == {"k": "v"}

    @pytest.mark.parametrize(
        "parts",
        [
            [("file", ("a.pdf", PDF)), ("options", (None, "{}"))],
            [("options", (None, "{}"))],
            [("file", ("a.pdf", PDF)), ("file", ("b.pdf", PDF))],
        ],
        ids=["options last", "no file", "two files"],
    )
    def test_multipart_out_of_order_is_refused(self, gateway: TestClient, parts: Any) -> None:
        answer = gateway.post("/v1/jobs", files=parts)

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
        assert gateway.get("/v1/jobs").json()["data"] == []

    def test_many_small_parts_are_refused_before_they_fill_the_memory(
        self, gateway: TestClient
    ) -> None:
        parts = [(f"metadata.{number}", (None, "x" * 1000)) for number in range(70)]

        answer = gateway.post("/v1/jobs", files=[*parts, ("file", ("a.pdf", PDF))])

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")

    @pytest.mark.parametrize(
        "body",
        [
            b"--b\r\n\r\n\r\n" * 64 + FILE_PART,
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 64 + FILE_PART,
            (b"--b\r\n" + b"X: %s\r\n" % (b"x" * 4000) * 8 + b"\r\n\r\n") * 3 + FILE_PART,
            b"\r\n" * 50_000 + FILE_PART,
            FILE_PART + b"\r\n" * 50_000,
        ],
        ids=["parts without a name", "parts of one name", "headers", "before", "behind"],
    )
    def test_what_holds_nothing_in_a_multipart_body_has_an_end(
        self, gateway: TestClient, body: bytes
    ) -> None:
        stored = sorted(one.key for page in storage.listing() for one in page)

        answer = gateway.post(
            "/v1/jobs",
            content=_in_pieces(body),
            headers={"Content-Type": "multipart/form-data; boundary=b"},
        )

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")
        assert sorted(one.key for page in storage.listing() for one in page) == stored

    def test_every_option_may_be_a_part(self, gateway: TestClient) -> None:
        names = [f"metadata.{'k' * 50}{number}" for number in range(32)]
        fields = {"options": "{}", "task": "locate", "phrase": "a", "mode": "auto", "pages": "1-"}
        fields |= {"engine": "auto", "priority": "batch", "password": "sesame"}
        fields |= dict.fromkeys(names, "x" * 512)

        answer = gateway.post("/v1/jobs", data=fields, files={"file": ("a.pdf", PDF)})

        assert answer.status_code == 202, answer.text
        assert len(answer.json()["metadata"]) == 32

    def test_a_boundary_that_is_too_long_is_refused(self, gateway: TestClient) -> None:
        kind = "multipart/form-data; boundary=" + "b" * 1000
        answer = gateway.post("/v1/jobs", content=b"", headers={"Content-Type": kind})

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")

    def test_a_cut_off_multipart_body_makes_no_job(self, gateway: TestClient) -> None:
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + PDF
        answer = gateway.post(
            "/v1/jobs", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
        )

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            (b"", 422, "empty_upload"),
            (b"hello", 415, "unsupported_format"),
            (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unsupported_format"),
        ],
    )
    def test_what_is_no_document_is_refused_at_once(
        self, gateway: TestClient, body: bytes, status: int, code: str
    ) -> None:
        answer = gateway.post("/v1/jobs", content=body, headers={"Content-Type": "application/pdf"})

        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["Content-Type"] == "application/problem+json"

    @pytest.mark.parametrize("excess", [0, 1])
    def test_an_upload_may_be_as_large_as_the_limit_and_no_larger(
        self, gateway: TestClient, excess: int
    ) -> None:
        body = PDF.ljust(settings().max_upload_bytes + excess, b"\n")

        answer = gateway.post("/v1/jobs", content=_in_pieces(body))

        assert answer.status_code == (413 if excess else 202)
        if excess:
            assert answer.json()["code"] == "upload_too_large"
        else:
            row = row_of(answer.json())
            stored = storage.get(storage.source_key(row.tenant, row.id))
            assert hashlib.sha256(stored).hexdigest() == row.source_sha256

    @pytest.mark.parametrize(
        "options",
        [
            {"tsk": "text"},
            {"task": "sing"},
            {"pages": "0"},
            {"pages": "3-1"},
            {"pages": "1,,2"},
            {"engine": "abacus"},
            {"mode": "huge"},
            {"task": "locate"},
            {"task": "custom"},
            {"phrase": "Total"},
            {"task": "locate", "phrase": " "},
            {"task": "locate", "phrase": "a\x00b"},
            {"task": "locate", "phrase": "x" * 501},
            {"task": "describe", "engine": "paddle"},
            {"priority": "now"},
            {"metadata.a b": "c"},
            {"metadata.a": "\x00"},
            {"password": "sesame"},
        ],
        ids=str,
    )
    def test_options_that_mean_nothing_are_named(
        self, gateway: TestClient, options: dict[str, str]
    ) -> None:
        answer = gateway.post("/v1/jobs", content=PDF, params=options)

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_options")

    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ("../../etc/passwd", "passwd"),
            ("C:\\scans\\a.pdf", "a.pdf"),
            ("a\x00\r\n\u202eb.pdf", "ab.pdf"),
            ("", "document"),
            ("x" * 5000 + ".pdf", "x" * 251 + ".pdf"),
        ],
    )
    def test_a_name_is_data(self, gateway: TestClient, given: str, kept: str) -> None:
        assert submit(gateway, filename=given)["source"]["name"] == kept

    def test_a_password_is_sealed_and_never_shown(self, gateway: TestClient) -> None:
        answer = gateway.post(
            "/v1/jobs", content=PDF, headers={"Octavo-Document-Password": "sesame%21"}
        )

        assert "sesame" not in answer.text
        row = row_of(answer.json())
        assert row.sealed_password is not None
        assert b"sesame" not in row.sealed_password
        assert "sesame" not in json.dumps(row.options)

    def test_a_password_is_forgotten_when_the_job_ends(self, gateway: TestClient) -> None:
        job = gateway.post(
            "/v1/jobs", content=PDF, headers={"Octavo-Document-Password": "sesame"}
        ).json()

        gateway.post(f"/v1/jobs/{job['id']}/cancel")

        assert row_of(job).sealed_password is None


class TestReading:
    def test_pages_are_readable_while_the_job_runs(self, gateway: TestClient) -> None:
        job = submit(gateway)
        run(job, good=1, failed=1)

        answer = gateway.get(f"/v1/jobs/{job['id']}").json()
        listed = gateway.get(f"/v1/jobs/{job['id']}/pages").json()
        page = gateway.get(f"/v1/jobs/{job['id']}/pages/1").json()
        bad = gateway.get(f"/v1/jobs/{job['id']}/pages/2").json()

        assert answer["status"] == "running"
        assert answer["pages"] == {"total": 2, "succeeded": 1, "failed": 1, "running": 0}
        assert [row["status"] for row in listed["data"]] == ["succeeded", "failed"]
        assert page["text"] == "page 1"
        assert bad["error"]["code"] == "page_timeout"

    def test_a_page_that_is_not_read_yet_says_so(self, gateway: TestClient) -> None:
        job = submit(gateway)

        answer = gateway.get(f"/v1/jobs/{job['id']}/pages/1")

        assert (answer.status_code, answer.json()["code"]) == (409, "page_not_finished")
        assert answer.json()["retryable"]

    def test_a_page_that_does_not_exist_is_not_found(self, gateway: TestClient) -> None:
        job = submit(gateway)
        run(job, good=2)

        assert gateway.get(f"/v1/jobs/{job['id']}/pages/3").status_code == 404

    def test_the_result_is_there_when_the_job_has_ended(self, gateway: TestClient) -> None:
        job = submit(gateway, filename="report 1.pdf")
        early = gateway.get(f"/v1/jobs/{job['id']}/result")
        run(job, good=1, failed=1)
        assemble(job)

        answer = gateway.get(f"/v1/jobs/{job['id']}/result")

        assert early.status_code == 202
        assert early.json()["id"] == job["id"]
        assert "Retry-After" in early.headers
        assert (answer.status_code, answer.text) == (200, "# read")
        assert answer.headers["Content-Type"] == "text/markdown; charset=utf-8"
        assert answer.headers["Content-Disposition"].endswith("report%201.md")
        assert answer.headers["Content-Security-Policy"] == "sandbox"
        assert gateway.get(f"/v1/jobs/{job['id']}").json()["status"] == "partially_succeeded"

    def test_a_failed_job_has_no_result_but_a_cause(self, gateway: TestClient) -> None:
        job = submit(gateway)
        run(job, good=0, failed=1)
        assemble(job)

        answer = gateway.get(f"/v1/jobs/{job['id']}/result")

        assert (answer.status_code, answer.json()["code"]) == (409, "job_failed")
        assert answer.json()["cause"]["code"] == "page_timeout"

    def test_waiting_returns_at_the_time_where_nothing_happens(self, gateway: TestClient) -> None:
        job = submit(gateway)

        answer = gateway.get(f"/v1/jobs/{job['id']}", params={"wait": 0.2})

        assert answer.json()["status"] == "queued"
        assert answer.elapsed.total_seconds() >= 0.2

    def test_who_waits_for_the_end_is_told_how_far_it_is_when_time_is_up(
        self, gateway: TestClient
    ) -> None:
        job = submit(gateway)
        page = threading.Timer(0.2, run, [job], {"good": 1})
        page.start()

        answer = gateway.get(f"/v1/jobs/{job['id']}", params={"wait": 3})
        page.join()

        assert answer.elapsed.total_seconds() >= 3
        assert answer.json()["pages"]["succeeded"] == 1

    def test_who_waits_for_the_end_hears_of_it_at_once(self, gateway: TestClient) -> None:
        job = submit(gateway)
        run(job, good=1)
        end = threading.Timer(0.2, assemble, [job])
        end.start()

        answer = gateway.get(f"/v1/jobs/{job['id']}", params={"wait": 30})
        end.join()

        assert answer.json()["status"] == "succeeded"
        assert answer.elapsed.total_seconds() < 20

    def test_an_entity_tag_saves_an_answer_until_something_changes(
        self, gateway: TestClient
    ) -> None:
        job = submit(gateway)
        first = gateway.get(f"/v1/jobs/{job['id']}")
        headers = {"If-None-Match": first.headers["ETag"]}

        assert gateway.get(f"/v1/jobs/{job['id']}", headers=headers).status_code == 304
        run(job, good=1)
        later = gateway.get(f"/v1/jobs/{job['id']}", headers=headers, params={"wait": 5})
        assert later.status_code == 200
        assert later.elapsed.total_seconds() < 3


class TestListing:
    def test_jobs_come_newest_first_in_pages_that_join(self, gateway: TestClient) -> None:
        ids = [submit(gateway)["id"] for _ in range(5)]

        first = gateway.get("/v1/jobs", params={"limit": 2}).json()
        submit(gateway)
        second = gateway.get(
            "/v1/jobs", params={"limit": 200, "cursor": first["next_cursor"]}
        ).json()

        assert [job["id"] for job in first["data"] + second["data"]] == ids[::-1]
        assert second["next_cursor"] is None

    def test_jobs_are_found_by_status_and_metadata(self, gateway: TestClient) -> None:
        submit(gateway)
        found = submit(gateway, PDF, **{"metadata.case": "A"})
        gateway.post(f"/v1/jobs/{found['id']}/cancel")

        by_status = gateway.get("/v1/jobs", params={"status": "cancelled"}).json()["data"]
        by_metadata = gateway.get("/v1/jobs", params={"metadata.case": "A"}).json()["data"]

        assert [job["id"] for job in by_status] == [found["id"]]
        assert [job["id"] for job in by_metadata] == [found["id"]]

    def test_a_cursor_that_is_not_ours_is_refused(self, gateway: TestClient) -> None:
        answer = gateway.get("/v1/jobs", params={"cursor": "AAAAAAAAAAAAAAAAAAAA"})

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_options")


class TestEnding:
    def test_cancelling_answers_by_what_the_job_is(self, gateway: TestClient) -> None:
        job, done = submit(gateway), submit(gateway)
        run(done, good=1)
        assemble(done)

        codes = [
            gateway.post(f"/v1/jobs/{each['id']}/cancel").status_code for each in (job, job, done)
        ]

        assert codes == [202, 200, 409]
        assert gateway.get(f"/v1/jobs/{job['id']}/result").json()["code"] == "job_cancelled"

    def test_a_retry_reads_only_the_failed_pages_again(self, gateway: TestClient) -> None:
        job = submit(gateway)
        run(job, good=2, failed=1)
        assemble(job)

        answer = gateway.post(f"/v1/jobs/{job['id']}/retry", json={"pages": "failed"})

        again = answer.json()
        assert answer.status_code == 202
        assert again["retry_of"] == job["id"]
        assert again["pages"] == {"total": 3, "succeeded": 2, "failed": 0, "running": 0}
        page = gateway.get(f"/v1/jobs/{again['id']}/pages/2").json()
        assert page["text"] == "page 2"
        row = row_of(again)
        assert storage.get(storage.source_key(row.tenant, row.id)) == PDF

    def test_a_retry_of_what_has_expired_says_gone(self, gateway: TestClient) -> None:
        job = submit(gateway)
        run(job, good=1, failed=1)
        assemble(job)
        row = row_of(job)
        storage.delete_prefix(storage.job_prefix(row.tenant, row.id))  # the sweeper's first half

        answer = gateway.post(f"/v1/jobs/{job['id']}/retry", json={})

        assert (answer.status_code, answer.json()["code"]) == (410, "result_expired")

    def test_a_retry_of_nothing_says_so(self, gateway: TestClient) -> None:
        job = submit(gateway)
        assert gateway.post(f"/v1/jobs/{job['id']}/retry", json={}).json()["code"] == (
            "job_not_finished"
        )
        run(job, good=1)
        assemble(job)

        answer = gateway.post(f"/v1/jobs/{job['id']}/retry", json={})

        assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_retry")

    @pytest.mark.parametrize(
        ("asked", "code"),
        [
            ("failed", "nothing_to_retry"),
            ("7", "invalid_page_range"),
            ("garbage", "invalid_options"),
            ("all", "quota_exceeded"),
        ],
    )
    def test_a_retry_that_is_refused_copies_nothing(
        self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch, asked: str, code: str
    ) -> None:
        copies: list[object] = []
        monkeypatch.setattr(storage, "copy", lambda *keys: copies.append(keys))
        job = submit(gateway)
        run(job, good=1)
        assemble(job)
        if asked == "all":
            monkeypatch.setattr(admission, "KNOWN_SECONDS", 0.0)
            with transaction() as session:
                [(name, _)] = quotas.everybody(session)
                quotas.limit(session, name, {"max_stored_bytes": 2 * len(PDF) - 1})

        answer = gateway.post(f"/v1/jobs/{job['id']}/retry", json={"pages": asked})

        assert answer.json()["code"] == code
        assert copies == []

    def test_a_document_that_was_never_opened_is_read_again_as_it_was_to_be(
        self, gateway: TestClient
    ) -> None:
        job = submit(gateway, pages="1-2")
        gateway.post(f"/v1/jobs/{job['id']}/cancel")

        def retried(chosen: str) -> Any:
            return gateway.post(f"/v1/jobs/{job['id']}/retry", json={"pages": chosen})

        answers = [retried(chosen) for chosen in ("failed", "all", "2")]

        assert [answer.json()["options"]["pages"] for answer in answers] == ["1-2"] * 3
        assert [retried(chosen).json()["code"] for chosen in ("garbage", "3-1", "")] == [
            "invalid_options"
        ] * 3

    def test_deleting_takes_rows_and_objects_away(self, gateway: TestClient) -> None:
        from worker import sweeper

        job = submit(gateway)
        run(job, good=1)
        assemble(job)
        row = row_of(job)

        first = gateway.delete(f"/v1/jobs/{job['id']}")
        assert first.status_code == 202
        assert gateway.get(f"/v1/jobs/{job['id']}").json()["code"] == "job_deleted"
        sweeper.purge()
        second = gateway.delete(f"/v1/jobs/{job['id']}")

        assert second.status_code == 200
        assert second.json()["objects"] == 2
        assert second.json()["rows"] == 6
        assert storage.delete_prefix(storage.job_prefix(row.tenant, row.id)) == 0
        assert gateway.get(f"/v1/jobs/{job['id']}").status_code == 410

    def test_deleting_stops_what_runs(self, gateway: TestClient) -> None:
        job = submit(gateway)
        with transaction() as session:
            row = session.get_one(Job, jobs.parse_id(job["id"]))
            held = claimed(session, work_of(session, row, WorkKind.PREPARE)[0])

        gateway.delete(f"/v1/jobs/{job['id']}")

        with transaction() as session:
            assert new_pages.begin(session, held, row, 1) is None

    def test_an_expired_result_says_gone(self, gateway: TestClient) -> None:
        from sqlalchemy import text

        from worker import sweeper

        job = submit(gateway)
        run(job, good=1)
        assemble(job)
        with transaction() as session:
            session.execute(text("UPDATE jobs SET expires_at = now() - interval '1 s'"))
        sweeper.expire()

        answer = gateway.get(f"/v1/jobs/{job['id']}").json()
        assert (answer["status"], answer["finished_as"]) == ("expired", "succeeded")
        for path in ("result", "pages", "pages/1"):
            gone = gateway.get(f"/v1/jobs/{job['id']}/{path}")
            assert (gone.status_code, gone.json()["code"]) == (410, "result_expired")

    def test_a_job_past_its_deadline_fails(self, gateway: TestClient) -> None:
        from sqlalchemy import text

        from worker import sweeper

        job = submit(gateway)
        with transaction() as session:
            session.execute(text("UPDATE jobs SET deadline_at = now() - interval '1 s'"))

        assert sweeper.end_overdue() == 1

        assert row_of(job).status is JobStatus.FAILED
        assert gateway.get(f"/v1/jobs/{job['id']}").json()["error"]["code"] == "deadline_exceeded"


class TestAuthorization:
    ROUTES = (
        ("GET", ""),
        ("GET", "/pages"),
        ("GET", "/pages/1"),
        ("GET", "/result"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
        ("DELETE", ""),
    )

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_another_tenants_job_does_not_exist(
        self, gateway: TestClient, method: str, path: str
    ) -> None:
        job = submit(gateway)

        body: dict[str, str] | None = {} if path == "/retry" else None
        answer = gateway.request(
            method, f"/v1/jobs/{job['id']}{path}", headers=authorization(), json=body
        )

        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    @pytest.mark.parametrize(("method", "path"), ROUTES)
    def test_without_a_key_nothing_is_said(
        self, gateway: TestClient, method: str, path: str
    ) -> None:
        job = submit(gateway)

        answer = gateway.request(
            method, f"/v1/jobs/{job['id']}{path}", headers={"Authorization": ""}, json={}
        )

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    def test_a_key_may_do_what_its_scopes_say(self, gateway: TestClient) -> None:
        headers = authorization("jobs:read")

        assert gateway.get("/v1/jobs", headers=headers).status_code == 200
        answer = gateway.post("/v1/jobs", headers=headers, content=PDF)
        assert (answer.status_code, answer.json()["code"]) == (403, "missing_scope")

    def test_other_tenants_jobs_are_not_listed(self, gateway: TestClient) -> None:
        submit(gateway)

        assert gateway.get("/v1/jobs", headers=authorization()).json()["data"] == []

    @pytest.mark.parametrize("change", ["flip", "cut", "revoke", "expire"])
    def test_a_key_that_is_not_right_is_refused(self, gateway: TestClient, change: str) -> None:
        from sqlalchemy import text

        headers = authorization()
        key = headers["Authorization"]
        if change == "flip":
            key = key[:-20] + ("A" if key[-20] != "A" else "B") + key[-19:]
        elif change == "cut":
            key = key[:-1]
        with transaction() as session:
            if change == "revoke":
                keys.revoke(session, key.split("_")[2])
            elif change == "expire":
                session.execute(text("UPDATE api_keys SET expires_at = now() - interval '1 s'"))

        answer = gateway.get("/v1/jobs", headers={"Authorization": key})

        assert answer.status_code == 401

    def test_a_key_that_was_just_used_ends_a_second_after_its_revocation(
        self, gateway: TestClient
    ) -> None:
        headers = authorization()
        assert gateway.get("/v1/jobs", headers=headers).status_code == 200
        with transaction() as session:
            keys.revoke(session, headers["Authorization"].split("_")[2])

        time.sleep(KEPT_SECONDS)

        assert gateway.get("/v1/jobs", headers=headers).status_code == 401

    def test_the_secret_is_nowhere_in_the_database(self, gateway: TestClient) -> None:
        from sqlalchemy import text

        secret = gateway.headers["Authorization"].split("_", 3)[3][:43]

        with transaction() as session:
            dump = session.execute(text("SELECT api_keys::text FROM api_keys")).scalars().all()

        assert dump
        assert not any(secret in row or secret.encode().hex() in row for row in dump)


class TestProblems:
    def test_every_problem_has_the_request_id(self, gateway: TestClient) -> None:
        answer = gateway.get("/v1/jobs/nonsense", headers={"X-Request-Id": "mine-1"})

        assert answer.headers["X-Request-Id"] == "mine-1"
        assert answer.json()["request_id"] == "mine-1"
        assert answer.json()["type"] == "urn:octavo:error:not_found"

    def test_unknown_paths_and_methods_are_problems_too(self, gateway: TestClient) -> None:
        path = gateway.get("/v2/nothing")
        method = gateway.put("/v1/jobs")

        assert (path.status_code, path.json()["code"]) == (404, "not_found")
        assert (method.status_code, method.json()["code"]) == (405, "method_not_allowed")
        assert "Allow" in method.headers

    def test_a_small_route_takes_no_large_body(self, gateway: TestClient) -> None:
        job = submit(gateway)

        answer = gateway.post(f"/v1/jobs/{job['id']}/retry", content=_in_pieces(b" " * 100_000))

        assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")

    def test_answers_say_how_they_may_be_used(self, gateway: TestClient) -> None:
        headers = gateway.get("/v1/jobs").headers

        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"

    def test_health_needs_no_key(self, gateway: TestClient) -> None:
        nobody = {"Authorization": ""}

        assert gateway.get("/livez", headers=nobody).json() == {"status": "ok"}
        assert gateway.get("/readyz", headers=nobody).json() == {"status": "ok"}

    def test_a_gateway_that_ends_is_not_ready(self, gateway: TestClient) -> None:
        gateway.app.state.draining.set()  # type: ignore[attr-defined]

        assert gateway.get("/readyz").status_code == 503
        assert gateway.get("/livez").status_code == 200


def _in_pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 65536):
        yield body[start : start + 65536]
