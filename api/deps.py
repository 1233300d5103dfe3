"""What routes ask for: who calls, and a transaction.

The transaction has function scope: it commits before the answer is sent. With FastAPI's default
the client would have its 202 before the commit, and never hear of one that failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated

from fastapi import Depends, Header, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.admission import Admission
from api.known_callers import KnownCallers
from shared import crash_point, keys
from shared.audit import Actor
from shared.db import transaction
from shared.errors import MissingScope, RateLimited, Unauthenticated
from shared.keys import Caller

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="`Authorization: Bearer octavo_live_...`, as `octavo keys create` printed it.",
)


def session(request: Request) -> Iterator[Session]:
    """A transaction that lasts as long as the route's function, and serves who calls it.

    A route names its caller before it: of who was not asked for yet, no row is to be seen.
    """
    known: Caller | None = getattr(request.state, "caller", None)
    with transaction(known.tenant if known else None) as opened:
        yield opened
    crash_point.reach("request", "committed")


Transaction = Annotated[Session, Depends(session, scope="function")]


async def actor(request: Request) -> Actor:
    """Who calls, as the audit log names it; a route names its caller before."""
    return Actor(request.state.caller.key_id, request.state.request_id, _address(request))


def allowed(scope: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that says who calls.

    Raises Unauthenticated, MissingScope without `scope`, or RateLimited.
    """
    wanted = Security(bearer, scopes=[scope])  # the scope is for OpenAPI: it is checked below

    async def caller(
        request: Request,
        credentials: HTTPAuthorizationCredentials | None = wanted,
    ) -> Caller:
        if credentials is None:
            raise Unauthenticated
        found = await _caller(request, credentials.credentials)
        await _count(request, found)
        if scope not in found.scopes:
            raise MissingScope(f"This API key lacks the scope {scope}.")
        request.state.caller = found
        return found

    return caller


async def _caller(request: Request, key: str) -> Caller:
    known: KnownCallers = request.app.state.known_callers
    found = known.find(key)
    if found is None:
        with request.app.state.logins.attempt(_address(request), key):
            found = await run_in_threadpool(_authenticate, key)
        known.keep(key, found)
    return found


async def _count(request: Request, caller: Caller) -> None:
    """Count a tenant's request; raises RateLimited where it is one too many."""
    admission: Admission = request.app.state.admission
    if not admission.knows(caller.tenant):
        await run_in_threadpool(admission.look, caller.tenant)
    rate = request.state.rate = admission.request(caller.tenant)
    if rate.retry_after_seconds is not None:
        raise RateLimited(retry_after_seconds=rate.retry_after_seconds)


def _authenticate(key: str) -> Caller:
    with transaction() as opened:
        return keys.authenticate(opened, key)


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


Reader = Annotated[Caller, Depends(allowed("jobs:read"))]
Submitter = Annotated[Caller, Depends(allowed("jobs:write"))]
Deleter = Annotated[Caller, Depends(allowed("jobs:delete"))]
Acting = Annotated[Actor, Depends(actor)]
Once = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[ -~]+$",
        description="Your name for this request, such as a random UUID. Sent again with the same "
        "name, it is answered with the same job; for at least 24 hours.",
    ),
]
