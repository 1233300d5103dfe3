"""What routes ask for: who calls, and a transaction.

The transaction has function scope: it commits before the answer is sent. With FastAPI's default
the client would have its 202 before the commit, and never hear of one that failed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.orm import Session

from api.known_callers import KnownCallers
from shared import keys
from shared.db import transaction
from shared.errors import MissingScope, Unauthenticated
from shared.keys import Caller

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="API key",
    description="`Authorization: Bearer octavo_live_...`, as `octavo keys create` printed it.",
)


def session() -> Iterator[Session]:
    """A transaction that lasts as long as the route's function."""
    with transaction() as opened:
        yield opened


Transaction = Annotated[Session, Depends(session, scope="function")]


async def request_id(request: Request) -> str:
    """The id of this request, which is on every line of the log that it causes."""
    found: str = request.state.request_id
    return found


def allowed(scope: str) -> Callable[..., Awaitable[Caller]]:
    """A dependency that says who calls; raises Unauthenticated, or MissingScope without `scope`."""

    async def caller(
        request: Request,
        credentials: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    ) -> Caller:
        if credentials is None:
            raise Unauthenticated
        known: KnownCallers = request.app.state.known_callers
        found = known.find(credentials.credentials)
        if found is None:
            found = await run_in_threadpool(_authenticate, credentials.credentials)
            known.keep(credentials.credentials, found)
        if scope not in found.scopes:
            raise MissingScope(f"This API key lacks the scope {scope}.")
        return found

    return caller


def _authenticate(key: str) -> Caller:
    with transaction() as opened:
        return keys.authenticate(opened, key)


Reader = Annotated[Caller, Depends(allowed("jobs:read"))]
Submitter = Annotated[Caller, Depends(allowed("jobs:write"))]
Deleter = Annotated[Caller, Depends(allowed("jobs:delete"))]
RequestId = Annotated[str, Depends(request_id)]
