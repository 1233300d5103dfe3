"""Who may ask what: every operation of the OpenAPI document, with every kind of key."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from shared import keys
from shared.db import transaction
from shared.models import ApiKey
from tests.factory import authorization, make_tenant
from tests.operations import OPEN, OPERATIONS, documented, finished

DOCUMENTED = documented()
GUARDED = {named: operation for named, operation in DOCUMENTED.items() if named[1] not in OPEN}


def scopes_of(named: tuple[str, str]) -> list[str]:
    """The scopes that the OpenAPI document says an operation needs."""
    [wanted] = DOCUMENTED[named]["security"]
    found: list[str] = wanted["API key"]
    return found


def look_alike(key_id: str) -> str:
    """A key with that id and a right checksum, and another secret."""
    secret = "B" * 43
    return f"octavo_live_{key_id}_{secret}{keys._checksum(key_id, secret)}"  # noqa: SLF001


def key_of(header: dict[str, str]) -> str:
    return header["Authorization"].removeprefix("Bearer ")


def refused_headers(case: str) -> dict[str, str]:
    """The headers of a request whose key is not good, for the reason `case`."""
    good = key_of(authorization())
    key_id = good.split("_")[2]
    if case == "revoked":
        with transaction() as session:
            keys.revoke(session, key_id)
    elif case == "expired":
        with transaction() as session:
            past = datetime.now(UTC) - timedelta(seconds=1)
            good = keys.create(session, make_tenant(session), expires_at=past)
    return {
        "no key": {"Authorization": ""},
        "another scheme": {"Authorization": f"Basic {good}"},
        "in a query's words": {"Authorization": "Bearer", "X-Api-Key": good},
        "malformed": {"Authorization": "Bearer nonsense"},
        "odd characters": {"Authorization": "Bearer octavo_live_ÿ\xa0%00"},
        "a flipped character": {"Authorization": f"Bearer {good[:-20]}~{good[-19:]}"},
        "unknown": {"Authorization": f"Bearer {look_alike('zzzzzzzz')}"},
        "a wrong secret": {"Authorization": f"Bearer {look_alike(key_id)}"},
        "revoked": {"Authorization": f"Bearer {good}"},
        "expired": {"Authorization": f"Bearer {good}"},
    }[case]


REFUSED = [
    "no key",
    "another scheme",
    "in a query's words",
    "malformed",
    "odd characters",
    "a flipped character",
    "unknown",
    "a wrong secret",
    "revoked",
    "expired",
]


def test_every_operation_of_the_document_has_its_row_here() -> None:
    assert set(GUARDED) == set(OPERATIONS)


def test_every_route_is_in_the_document_or_open_by_name() -> None:
    def paths(routes: list[object]) -> set[str]:
        found: set[str] = set()
        for route in routes:
            inner = getattr(route, "routes", None) or getattr(
                getattr(route, "original_router", None), "routes", None
            )
            found |= paths(inner) if inner else {getattr(route, "path", repr(route))}
        return found

    served = paths(list(create_app().routes))

    assert "/docs" in served
    assert served == {path for _, path in DOCUMENTED} | OPEN


def test_every_scope_is_needed_by_an_operation_and_every_operation_needs_one() -> None:
    wanted = [scopes_of(named) for named in GUARDED]

    assert all(len(scopes) == 1 for scopes in wanted)
    assert {scope for scopes in wanted for scope in scopes} == set(keys.SCOPES)


@pytest.mark.parametrize("path", sorted(OPEN))
def test_what_is_open_answers_without_a_key(gateway: TestClient, path: str) -> None:
    assert gateway.get(path, headers={"Authorization": ""}).status_code == 200


@pytest.mark.parametrize("named", GUARDED, ids=" ".join)
@pytest.mark.parametrize("case", REFUSED)
def test_a_key_that_is_not_good_is_refused(
    gateway: TestClient, named: tuple[str, str], case: str
) -> None:
    ask = OPERATIONS[named].ask(gateway, named[0])

    headers = [
        (name.encode(), value.encode("latin-1")) for name, value in refused_headers(case).items()
    ]
    answer = gateway.request(ask.method, ask.path, headers=headers, **ask.options)

    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("named", GUARDED, ids=" ".join)
def test_a_key_in_the_address_is_no_key(gateway: TestClient, named: tuple[str, str]) -> None:
    ask = OPERATIONS[named].ask(gateway, named[0])
    key = key_of(dict(gateway.headers) | {"Authorization": gateway.headers["Authorization"]})

    answer = gateway.request(
        ask.method,
        ask.path,
        params={"api_key": key, "access_token": key},
        headers={"Authorization": ""},
        **ask.options,
    )

    assert answer.status_code == 401


@pytest.mark.parametrize("named", GUARDED, ids=" ".join)
def test_a_key_without_the_scope_is_refused(gateway: TestClient, named: tuple[str, str]) -> None:
    operation = OPERATIONS[named]
    path = operation.prepare(gateway)
    [needed] = scopes_of(named)
    tenant = _tenant_of(gateway)
    others = tuple(scope for scope in keys.SCOPES if scope != needed)
    with transaction() as session:
        without = keys.create(session, tenant, scopes=others)
        alone = keys.create(session, tenant, scopes=(needed,))

    answers = [
        gateway.request(
            named[0], path, headers={"Authorization": f"Bearer {key}"}, **operation.options
        )
        for key in (without, alone)
    ]

    assert (answers[0].status_code, answers[0].json()["code"]) == (403, "missing_scope")
    assert needed in answers[0].json()["detail"]
    assert answers[1].status_code == operation.status


@pytest.mark.parametrize("named", [named for named in GUARDED if "{" in named[1]], ids=" ".join)
def test_what_is_another_tenants_does_not_exist(
    gateway: TestClient, named: tuple[str, str]
) -> None:
    ask = OPERATIONS[named].ask(gateway, named[0])

    answer = ask.by(gateway, **authorization())
    unknown = gateway.request(
        named[0],
        f"/v1/jobs/job_{'0' * 32}/{ask.path.partition('/v1/jobs/')[2].partition('/')[2]}".rstrip(
            "/"
        ),
        **ask.options,
    )

    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    told, known = (
        {k: v for k, v in each.json().items() if k not in {"request_id", "instance"}}
        for each in (answer, unknown)
    )
    assert told == known  # nothing says that it exists
    assert ask.by(gateway).status_code == OPERATIONS[named].status  # and nothing has happened to it


@pytest.mark.parametrize("named", [named for named in GUARDED if "{" not in named[1]], ids=" ".join)
def test_of_another_tenant_nothing_is_told(gateway: TestClient, named: tuple[str, str]) -> None:
    theirs = finished(gateway, filename="theirs.pdf")
    ask = OPERATIONS[named].ask(gateway, named[0])

    answer = ask.by(gateway, **authorization())

    assert answer.status_code == OPERATIONS[named].status
    assert theirs not in answer.text
    assert "theirs.pdf" not in answer.text


@pytest.mark.parametrize("named", GUARDED, ids=" ".join)
def test_the_right_key_is_answered(gateway: TestClient, named: tuple[str, str]) -> None:
    operation = OPERATIONS[named]

    assert operation.ask(gateway, named[0]).by(gateway).status_code == operation.status


def _tenant_of(gateway: TestClient) -> UUID:
    key_id = gateway.headers["Authorization"].split("_")[2]
    with transaction() as session:
        return session.get_one(ApiKey, key_id).tenant
