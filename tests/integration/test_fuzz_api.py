"""The whole OpenAPI document, asked with what it allows and with what it does not.

No answer is a 5xx or a status that is not documented, every body is what its schema says, and every
refusal is a problem with the request's id. `make fuzzapi` asks more, and each time something else.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote_plus

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.core.failures import AcceptedNegativeData, FailureGroup
from starlette.testclient import TestClient

from api.app import create_app
from api.schemas import JOB_ID, Problem
from deploy.embedded import ports
from shared import config, jobs
from shared.db import transaction
from shared.media import MediaType
from shared.models import Job
from shared.roles import Role
from tests import acting
from tests.factory import authorization
from tests.operations import PDF, finished, submitted
from tests.serving import served

EXAMPLES = int(os.environ.get("OCTAVO_FUZZ_EXAMPLES", "10"))
"""Of each kind, of each operation."""

bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize="OCTAVO_FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
schema = schemathesis.openapi.from_dict(
    create_app().openapi(),
    config=schemathesis.Config.from_dict(
        {
            "checks": {
                # A request that is right by its schema may ask for a job that is over or gone, send
                # a document that is none, or name a cursor or a range that means nothing.
                "positive_data_acceptance": {
                    "expected-statuses": ["2xx", "304", "404", "409", "410", "415", "422"]
                },
            }
        }
    ),
)
schemathesis.serializer.alias([kind.value for kind in MediaType], "application/octet-stream")

known_jobs: list[str] = []
"""Jobs in every state, and one of another tenant."""


@schema.hook
def flatmap_path_parameters(_: HookContext, path_parameters: dict[str, Any] | None) -> Any:
    """Ask for jobs that are there, mostly; by chance alone none would ever be met."""
    if not path_parameters or "job_id" not in path_parameters or not known_jobs:
        return st.just(path_parameters)
    there = st.sampled_from(known_jobs).map(lambda job_id: path_parameters | {"job_id": job_id})
    return st.one_of(there, there, st.just(path_parameters))


@schema.hook
def flatmap_body(_: HookContext, body: Any) -> Any:
    """Send documents, too; by chance alone none would ever be one."""
    return st.sampled_from([PDF, body]) if isinstance(body, bytes) else st.just(body)


def refusals_are_problems(_: CheckContext, response: Response, __: Case[Any]) -> None:
    if response.status_code >= 400:
        assert_problem(response.status_code, response.headers, response.json())


def assert_problem(status: int, headers: Any, body: Any) -> None:
    def field(name: str) -> str:
        value = headers[name]
        return value[0] if isinstance(value, list) else str(value)

    said = Problem.model_validate(body)
    assert field("content-type") == "application/problem+json"
    assert said.status == status
    assert said.request_id == field("x-request-id")
    assert field("x-content-type-options") == "nosniff"


@pytest.fixture(autouse=True)
def _empty_tables() -> None:
    """The tests share their jobs: making them takes longer than asking for them."""


@pytest.fixture(scope="module")
def app(_schema: None) -> Iterator[acting.App]:
    """The gateway's application, where nobody waits for long or guesses keys."""
    with pytest.MonkeyPatch.context() as patch:
        short = config.settings().model_copy(
            update={
                "max_wait_seconds": 0.05,
                "max_watch_seconds": 0.05,
                "max_failed_logins": 10_000_000,
            }
        )
        patch.setattr("api.routes.jobs.settings", lambda: short)
        patch.setattr("api.watching.settings", lambda: short)
        patch.setattr("api.app.settings", lambda: short)
        yield acting.App(create_app(), Role.GATEWAY)


@pytest.fixture(scope="module")
def client(app: acting.App) -> Iterator[TestClient]:
    """A tenant whose jobs are in every state."""
    from worker import sweeper

    with (
        TestClient(app, headers=authorization()) as tenant,
        TestClient(app, headers=authorization()) as other,
    ):
        cancelled, expired, overdue, deleted, purged = (submitted(tenant) for _ in range(5))
        for job_id in (cancelled, expired):
            tenant.post(f"/v1/jobs/{job_id}/cancel")
        tenant.delete(f"/v1/jobs/{purged}")
        with transaction() as session:
            for job_id, column in ((expired, "expires_at"), (overdue, "deadline_at")):
                row = session.get_one(Job, jobs.parse_id(job_id))
                setattr(row, column, row.created_at)
        for step in (sweeper.expire, sweeper.end_overdue, sweeper.purge):
            step()
        tenant.delete(f"/v1/jobs/{deleted}")
        known_jobs[:] = [cancelled, expired, overdue, deleted, purged, finished(other)]
        yield tenant


@pytest.fixture(scope="module")
def url(app: acting.App) -> Iterator[str]:
    with served(app) as port:
        yield f"http://{ports.HOST}:{port}"


@pytest.fixture
def job(client: TestClient) -> str:
    """A job that was read, and one that waits; those of earlier tests may be deleted by now."""
    known_jobs[6:] = [submitted(client), finished(client)]
    return known_jobs[-1]


@schema.parametrize()
@bounded
def test_what_the_document_says_is_true(
    case: Case[Any], url: str, client: TestClient, job: str
) -> None:
    if _job_of(case) == JOB_ID:  # the document's example
        case.path_parameters["job_id"] = job
    with _our_key_excused():
        case.call_and_validate(
            base_url=url,
            headers={"Authorization": client.headers["Authorization"]},
            additional_checks=[refusals_are_problems],
        )


@contextmanager
def _our_key_excused() -> Iterator[None]:
    try:
        yield
    except FailureGroup as failures:
        if not all(map(_misses_the_key_that_we_sent, failures.exceptions)):
            raise


def _misses_the_key_that_we_sent(failure: Exception) -> bool:
    """Whether a request was wrong only until the test put its key back."""
    return isinstance(failure, AcceptedNegativeData) and "was Authorization" in str(failure)


STRINGS = [
    "\x00",
    "%00",
    "%ED%A0%80",  # a surrogate
    "%FF%FE",
    "a" * 50_000,
    "9" * 5_000,
    "-1",
    "1e999",
    "NaN",
    "Infinity",
    "\u202e\U0001f4a9\u0000",
    "{}",
    "' OR 1=1 --",
    "../../etc/passwd",
    "٣",  # a digit elsewhere
    "",
]


def test_what_one_answer_leads_to_is_true_too(url: str, client: TestClient) -> None:
    """Jobs are submitted, and what their answers link to is asked for."""
    machine: Any = schema.as_state_machine()

    class Asking(machine):  # type: ignore[misc]
        def get_call_kwargs(self, case: Case[Any]) -> dict[str, Any]:
            headers = {"Authorization": client.headers["Authorization"]}
            return {"base_url": url, "headers": headers}

        def validate_response(self, response: Response, case: Case[Any], **options: Any) -> None:
            if response.status_code == 200 and _job_of(case) not in {None, *known_jobs}:
                followed.add(case.operation.label)
            checks = [refusals_are_problems]
            with _our_key_excused():
                super().validate_response(response, case, additional_checks=checks, **options)

    followed: set[str] = set()
    Asking.run(settings=settings(bounded, stateful_step_count=8))

    assert followed  # what nobody but an earlier answer can have named


def _job_of(case: Case[Any]) -> Any:
    return (case.path_parameters or {}).get("job_id")


def _parameters() -> list[tuple[str, str, str]]:
    return [
        (method.upper(), path, parameter["name"])
        for path, item in create_app().openapi()["paths"].items()
        for method, operation in item.items()
        for parameter in operation.get("parameters", [])
        if parameter["in"] in {"query", "path"}
    ]


@pytest.mark.parametrize("parameter", _parameters(), ids=" ".join)
def test_no_parameter_is_too_odd(
    url: str, client: TestClient, job: str, parameter: tuple[str, str, str]
) -> None:
    method, path, name = parameter
    operation = create_app().openapi()["paths"][path][method.lower()]
    in_path = f"{{{name}}}" in path
    # A slash makes another path, which may not exist, or not with this method.
    documented = {*operation["responses"], *(("404", "405") if in_path else ())}
    headers = {"Authorization": client.headers["Authorization"]}
    with httpx.Client(base_url=url, headers=headers, timeout=30) as asking:
        for value in STRINGS:
            raw = value if value.startswith("%") else quote_plus(value)
            target = path.replace(f"{{{name}}}", raw or "%20")
            target = target.format(job_id=job, page_no=1, number=1) + (
                "" if in_path else f"?{name}={raw}"
            )
            answer = asking.request(method, target, content=PDF if method == "POST" else None)

            assert str(answer.status_code) in documented, (target[:100], answer.text)
            if answer.status_code >= 400:
                assert_problem(answer.status_code, answer.headers, answer.json())


@pytest.mark.parametrize(
    "field",
    [
        ("Accept", "image/png"),
        ("Accept", "*/*;q=nonsense, \xff"),
        ("Last-Event-ID", "1-1\xff"),
        ("Last-Event-ID", "9" * 5_000),
        ("Range", "bytes=0-0"),
        ("Range", "bytes=-1,9999-,x"),
        ("If-None-Match", '*, W/"\xff"'),
        ("If-Match", "nonsense"),
        ("Content-Type", "\xff"),
        ("Content-Type", "application/json; charset=utf-7"),
        ("Content-Encoding", "gzip"),
        ("Accept-Encoding", "zstd"),
        ("X-Request-Id", "a" * 10_000),
        ("X-Request-Id", "a\tb\xff"),
        ("Host", "evil.example"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1;host=evil.example"),
        ("X-HTTP-Method-Override", "DELETE"),
        ("Cookie", "a=" + "b" * 8000),
        ("Expect", "200-ok"),
    ],
    ids=lambda field: f"{field[0]} {field[1][:12]!r}",
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs"),
        ("GET", "/v1/jobs/{}"),
        ("GET", "/v1/jobs/{}/result"),
        ("GET", "/v1/jobs/{}/pages/1/events"),
        ("POST", "/v1/jobs/{}/retry"),
        ("POST", "/v1/jobs"),
    ],
)
def test_no_header_is_too_odd(
    client: TestClient, field: tuple[str, str], method: str, path: str
) -> None:
    job = known_jobs[-1]
    headers = [(field[0].encode(), field[1].encode("latin-1"))]

    answer = client.request(method, path.format(job), headers=headers, content=PDF)

    documented = create_app().openapi()["paths"][
        path.format("{job_id}").replace("/1/", "/{page_no}/")
    ][method.lower()]
    assert str(answer.status_code) in documented["responses"], answer.text
    assert "evil.example" not in answer.text
    assert "evil.example" not in answer.headers.get("Location", "")
    if answer.status_code >= 400:
        assert_problem(answer.status_code, answer.headers, answer.json())


def _multipart(*parts: bytes, end: bytes = b"--b--\r\n") -> bytes:
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + end


FILE = b'Content-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n' + PDF

MULTIPART = {
    "nothing": b"",
    "only an end": b"--b--\r\n",
    "no headers": _multipart(b"\r\nvalue"),
    "no disposition": _multipart(b"Content-Type: a/b\r\n\r\nvalue", FILE),
    "no name": _multipart(b"Content-Disposition: form-data\r\n\r\nvalue", FILE),
    "a disposition of nonsense": _multipart(b'Content-Disposition: ";;=\xff"\r\n\r\nx', FILE),
    "an odd name": _multipart(b'Content-Disposition: form-data; name="\xff\x00"\r\n\r\nx', FILE),
    "a long header": _multipart(b"X: " + b"y" * 200_000 + b"\r\n\r\nx", FILE),
    "many headers": _multipart(b"".join(b"X%d: y\r\n" % n for n in range(20_000)) + b"\r\nx"),
    "many parts": _multipart(*[b'Content-Disposition: form-data; name="a"\r\n\r\n'] * 20_000),
    "options that are no JSON": _multipart(
        b'Content-Disposition: form-data; name="options"\r\n\r\n{"pages": ', FILE
    ),
    "options that are a list": _multipart(
        b'Content-Disposition: form-data; name="options"\r\n\r\n[1]', FILE
    ),
    "options of depth": _multipart(
        b'Content-Disposition: form-data; name="options"\r\n\r\n' + b"[" * 30_000, FILE
    ),
    "options with a surrogate": _multipart(
        b'Content-Disposition: form-data; name="options"\r\n\r\n{"metadata": {"a": "\\ud800"}}',
        FILE,
    ),
    "options with a NUL": _multipart(
        b'Content-Disposition: form-data; name="options"\r\n\r\n{"metadata": {"a": "\\u0000"}}',
        FILE,
    ),
    "a password with a surrogate": _multipart(
        b'Content-Disposition: form-data; name="options"\r\n\r\n{"password": "\\udfff"}', FILE
    ),
    "another boundary": _multipart(FILE).replace(b"--b", b"--c"),
    "a bare line feed": _multipart(FILE).replace(b"\r\n", b"\n"),
    "no end": _multipart(FILE, end=b""),
    "something behind the end": _multipart(FILE) + b"x" * 100_000,
    "a file in a file": _multipart(FILE, FILE),
    "a file with an odd name": _multipart(FILE.replace(b"a.pdf", b"\xff\x00\\\x0d.pdf")),
    "base64": _multipart(b"Content-Transfer-Encoding: base64\r\n" + FILE),
}


@pytest.mark.parametrize("name", MULTIPART)
@pytest.mark.parametrize("kind", ["form-data; boundary=b", "form-data", "mixed; boundary=b"])
def test_no_multipart_body_is_too_odd(client: TestClient, name: str, kind: str) -> None:
    answer = client.post(
        "/v1/jobs",
        content=MULTIPART[name],
        headers={"Content-Type": f"multipart/{kind}"},
    )

    assert answer.status_code in {202, 400, 413, 415, 422}, answer.text
    if answer.status_code >= 400:
        assert_problem(answer.status_code, answer.headers, answer.json())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"a"',
        b"\xff",
        b'{"pages": 1}',
        b'{"pages": "' + b"1," * 20_000 + b'"}',
        b'{"pages": "\\u0000"}',
        b'{"pages": "\\ud800"}',
        b'{"password": "\\ud800"}',
        b'{"password": "\\u0000"}',
        b'{"pages": null}',
        b'{"pages": "all", "extra": 1}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"pages": 1e999}',
        b'{"pages": ' + b"9" * 50_000 + b"}",
        b'{"pages": NaN}',
    ],
    ids=lambda body: str(body[:20]),
)
def test_no_json_is_too_odd(client: TestClient, job: str, body: bytes) -> None:
    answer = client.post(
        f"/v1/jobs/{job}/retry", content=body, headers={"Content-Type": "application/json"}
    )

    assert answer.status_code in {202, 400, 409, 422}, answer.text
    if answer.status_code >= 400:
        assert_problem(answer.status_code, answer.headers, answer.json())


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "PUT", "PATCH", "PROPFIND"])
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/{}", "/v1/jobs/{}/result", "/livez"])
def test_other_methods_are_refused_by_name(url: str, job: str, method: str, path: str) -> None:
    answer = httpx.request(method, url + path.format(job), timeout=30)

    documented = create_app().openapi()["paths"][path.format("{job_id}")]
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {each.upper() for each in documented}
    if method != "HEAD":
        assert_problem(405, answer.headers, answer.json())


UNKNOWN = [
    *("/", "/v1", "/v1/jobs/", "//v1/jobs", "/v1/jobs/a/b/c", "/%00", "/%ff", "/" + "a" * 10_000),
    *("/v1/jobs%2f..", "/docs/", "/.git/config", "/metrics"),
]


@pytest.mark.parametrize("path", UNKNOWN, ids=lambda path: path[:20])
def test_unknown_paths_are_problems(url: str, client: TestClient, path: str) -> None:
    headers = {"Authorization": client.headers["Authorization"]}

    answer = httpx.get(url + path, headers=headers, timeout=30)

    assert answer.status_code == 404
    assert_problem(404, answer.headers, answer.json())
