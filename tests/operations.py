"""Every operation of the API: how it is asked rightly, and what it then does.

The tests of authorisation and of the audit log go over the OpenAPI document and look here; one
that they do not find fails them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient

from shared import jobs, new_pages, pages, storage
from shared.audit import Action
from shared.db import transaction
from shared.document import Block, BlockKind, Box
from shared.errors import PageTimeout
from shared.models import Job
from shared.status import JobStatus, WorkKind
from tests import documents
from tests.factory import claimed, recognition, work_of

PDF = documents.pdf(pages=1)
FIGURE = b"a picture"

OPEN = {"/livez", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
"""What needs no key. Nothing of a tenant is there."""


@dataclass(frozen=True)
class Ask:
    """A request, but for its key."""

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)

    def by(self, client: TestClient, **headers: str) -> Any:
        """The answer to it."""
        return client.request(self.method, self.path, headers=headers, **self.options)


@dataclass(frozen=True)
class Operation:
    """One operation of the OpenAPI document."""

    prepare: Callable[[TestClient], str]
    """Makes what it needs, as the tenant of the client; returns the path to ask."""
    status: int
    """What the right key is answered."""
    action: Action | None
    """What the audit log says of it, if it says anything."""
    options: dict[str, Any] = field(default_factory=dict)
    """What the request holds besides."""

    def ask(self, client: TestClient, method: str) -> Ask:
        """A request that is right, for the tenant of `client`."""
        return Ask(method, self.prepare(client), self.options)


def submitted(client: TestClient, **options: str) -> str:
    """The id of a job that waits."""
    answer = client.post("/v1/jobs", content=PDF, params=options)
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["id"]
    return job_id


def finished(client: TestClient, said: str = "said", **options: str) -> str:
    """The id of a job that was read: its first page says `said`, its second could not be read."""
    public = submitted(client, **options)
    with transaction() as session:
        job = session.get_one(Job, jobs.parse_id(public))
        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
        new_pages.begin(session, held, job, 2)
        rendered = [new_pages.Rendered(number, f"{number}.jpg", 100, 200) for number in (1, 2)]
        new_pages.add(session, held, rendered)
        good, bad = work_of(session, job, WorkKind.RECOGNISE)
        pages.succeed(session, claimed(session, good), recognition(said))
        pages.fail(session, claimed(session, bad), PageTimeout())
        held = claimed(session, work_of(session, job, WorkKind.ASSEMBLE)[0])
        storage.put(storage.result_key(job.tenant, job.id, held.attempt, "md"), said.encode())
        jobs.finish(session, held, JobStatus.PARTIALLY_SUCCEEDED)
    return public


def illustrated(client: TestClient) -> str:
    """The id of a job whose first page was read and has a figure; its second waits."""
    public = submitted(client)
    block = Block(kind=BlockKind.IMAGE, text="", box=Box(x0=0, y0=0, x1=9, y1=9), figure=1)
    with transaction() as session:
        job = session.get_one(Job, jobs.parse_id(public))
        held = claimed(session, work_of(session, job, WorkKind.PREPARE)[0])
        new_pages.begin(session, held, job, 2)
        rendered = [new_pages.Rendered(number, f"{number}.jpg", 100, 200) for number in (1, 2)]
        new_pages.add(session, held, rendered)
        held = claimed(session, work_of(session, job, WorkKind.RECOGNISE)[0])
        storage.put(storage.figure_key(job.tenant, job.id, 1, held.attempt, 1), FIGURE)
        pages.succeed(session, held, recognition(blocks=[block]))
    return public


def _of(make: Callable[[TestClient], str], path: str = "") -> Callable[[TestClient], str]:
    return lambda client: f"/v1/jobs/{make(client)}{path}"


OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/v1/jobs"): Operation(
        lambda _: "/v1/jobs", 202, Action.JOB_CREATED, {"content": PDF}
    ),
    ("GET", "/v1/jobs"): Operation(lambda _: "/v1/jobs", 200, None),
    ("GET", "/v1/jobs/{job_id}"): Operation(_of(submitted), 200, None),
    ("DELETE", "/v1/jobs/{job_id}"): Operation(_of(finished), 202, Action.JOB_DELETED),
    ("POST", "/v1/jobs/{job_id}/cancel"): Operation(
        _of(submitted, "/cancel"), 202, Action.JOB_CANCELLED
    ),
    ("POST", "/v1/jobs/{job_id}/retry"): Operation(
        _of(finished, "/retry"), 202, Action.JOB_RETRIED, {"json": {"pages": "failed"}}
    ),
    ("GET", "/v1/jobs/{job_id}/pages"): Operation(_of(finished, "/pages"), 200, None),
    ("GET", "/v1/jobs/{job_id}/pages/{page_no}"): Operation(
        _of(finished, "/pages/1"), 200, Action.PAGE_READ
    ),
    ("GET", "/v1/jobs/{job_id}/pages/{page_no}/events"): Operation(
        _of(finished, "/pages/1/events"), 200, Action.PAGE_READ
    ),
    ("GET", "/v1/jobs/{job_id}/pages/{page_no}/figures/{number}"): Operation(
        _of(illustrated, "/pages/1/figures/1"), 200, Action.FIGURE_READ
    ),
    ("GET", "/v1/jobs/{job_id}/result"): Operation(
        _of(finished, "/result"), 200, Action.RESULT_READ
    ),
    ("GET", "/v1/limits"): Operation(lambda _: "/v1/limits", 200, None),
}


def documented() -> dict[tuple[str, str], dict[str, Any]]:
    """The operations of the OpenAPI document, by method and path."""
    from api.app import create_app

    return {
        (method.upper(), path): operation
        for path, item in create_app().openapi()["paths"].items()
        for method, operation in item.items()
    }
