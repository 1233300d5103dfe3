"""The OpenAPI document is complete, and says the truth about itself."""

import json
import re
from typing import Any

import pytest
from starlette.testclient import TestClient

from api import examples
from api.schemas import DeletionReceipt, Job, JobList, PageList, PageText, Problem, RetryRequest
from client.event_stream import EventDecoder
from shared.document import Document, DocumentPage

OPEN = {"/livez", "/readyz"}


@pytest.fixture
def openapi(gateway: TestClient) -> dict[str, Any]:
    document: dict[str, Any] = gateway.get("/openapi.json").json()
    return document


def operations(openapi: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (path, operation) for path, item in openapi["paths"].items() for operation in item.values()
    ]


def test_every_reference_leads_somewhere(openapi: dict[str, Any]) -> None:
    named = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(openapi)))

    assert named
    assert named <= {f"#/components/schemas/{name}" for name in openapi["components"]["schemas"]}


def test_every_route_but_health_wants_a_key_and_says_what_that_means(
    openapi: dict[str, Any],
) -> None:
    for path, operation in operations(openapi):
        wants_key = bool(operation.get("security"))
        assert wants_key is (path not in OPEN), path
        assert ({"401", "403"} <= set(operation["responses"])) is wants_key, path


def test_every_operation_has_a_summary_and_a_description(openapi: dict[str, Any]) -> None:
    for path, operation in operations(openapi):
        assert operation["summary"], path
        assert operation["description"], path


def test_problems_are_problem_details(openapi: dict[str, Any]) -> None:
    for path, operation in operations(openapi):
        for status, response in operation["responses"].items():
            if status >= "400":
                assert "application/problem+json" in response["content"], (path, status)


def test_the_example_of_events_is_what_the_client_reads() -> None:
    *texts, page = EventDecoder().feed(examples.EVENTS.encode())

    assert [PageText.model_validate_json(event.data).text for event in texts] == [
        "From a sheet",
        " to an octavo",
    ]
    assert (page.name, json.loads(page.data)) == ("page", examples.PAGE)


@pytest.mark.parametrize("model", [Job, JobList, DeletionReceipt, Problem, RetryRequest])
def test_the_examples_of_a_schema_are_valid(model: Any) -> None:
    found = model.model_config["json_schema_extra"]["examples"]

    assert found
    for example in found:
        model.model_validate(example)


@pytest.mark.parametrize(
    ("model", "example"),
    [
        (Document, examples.DOCUMENT),
        (DocumentPage, examples.PAGE),
        (PageList, examples.PAGE_LIST),
    ],
    ids=["document", "page", "page list"],
)
def test_the_examples_of_what_is_read_are_valid(model: Any, example: Any) -> None:
    assert model.model_validate(example).model_dump(mode="json", by_alias=True) == example
