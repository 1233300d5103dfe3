"""How errors are answered: one handler shows them all, as problem details (RFC 9457)."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from api.schemas import Problem
from shared.errors import (
    InternalError,
    InvalidOptions,
    MalformedRequest,
    MethodNotAllowed,
    NotFound,
    OctavoError,
    RequestTooLarge,
    RequestTooSlow,
    Unauthenticated,
)

MEDIA_TYPE = "application/problem+json"

_BY_STATUS: dict[int, type[OctavoError]] = {
    400: MalformedRequest,
    404: NotFound,
    405: MethodNotAllowed,
    408: RequestTooSlow,
    413: RequestTooLarge,
}

RETRY_AFTER_SECONDS = {429: 10, 503: 5}
"""Where an error does not say how long to stay away, and these answers always must."""
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

log = structlog.get_logger()


def register(app: FastAPI) -> None:
    """Let every error of the application be answered as a problem."""
    app.add_exception_handler(OctavoError, _answer_octavo)
    app.add_exception_handler(RequestValidationError, _answer_validation)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(ClientDisconnect, _answer_nobody)


def documented(*errors: type[OctavoError]) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of the errors that a route may answer with."""
    by_status: dict[int | str, list[type[OctavoError]]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {
        status: {
            "description": " ".join(f"`{error.code}`: {error.title()}" for error in group),
            "model": Problem,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, group in by_status.items()
    }


def problem(request: Request, error: OctavoError) -> JSONResponse:
    """The answer to a request that ended in `error`."""
    return JSONResponse(details(request, error), error.status, _headers(error), MEDIA_TYPE)


def details(request: Request, error: OctavoError) -> dict[str, Any]:
    """What is said of `error`."""
    return {
        "type": f"urn:octavo:error:{error.code}",
        "status": error.status,
        "instance": request.url.path,
        "request_id": request.state.request_id,
        **error.facts(),
        **error.extra,
    }


def crash(request: Request, error: Exception) -> JSONResponse:
    """The answer to a request that ended in an error without a name: its id finds it in the log."""
    log.error("request_crashed", exc_info=error)
    return problem(request, InternalError())


def _headers(error: OctavoError) -> dict[str, str]:
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RequestTooSlow):
        headers["Connection"] = "close"
    wait = error.retry_after_seconds or RETRY_AFTER_SECONDS.get(error.status)
    if wait is not None:
        headers["Retry-After"] = str(wait)
    return headers


def _answer_octavo(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, OctavoError)
    return problem(request, error)


def _answer_validation(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = [
        {"pointer": "/" + "/".join(str(part) for part in one["loc"]), "message": one["msg"]}
        for one in error.errors()
    ]
    detail = "; ".join(f"{one['pointer']}: {one['message']}" for one in found)
    kind = MalformedRequest if _is_not_json(error) else InvalidOptions
    return problem(request, kind(detail, errors=found))


def _is_not_json(error: RequestValidationError) -> bool:
    return any(one["type"] == "json_invalid" for one in error.errors())


def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = problem(request, _BY_STATUS.get(error.status_code, MalformedRequest)())
    answer.headers.update(error.headers or {})
    if error.status_code == MethodNotAllowed.status:
        answer.headers["Allow"] = ", ".join(_methods_of(request))
    return answer


def _methods_of(request: Request) -> list[str]:
    """What the path may be asked with; Starlette names the methods of one of its routes only."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL
            for route in request.app.routes
        )
    ]


def _answer_nobody(request: Request, _: Exception) -> JSONResponse:
    """For a client that went away while it sent: no fault, and nobody hears."""
    return problem(request, MalformedRequest("The request ended before its body did."))
