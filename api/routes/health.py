"""Whether the gateway lives, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api.errors import documented
from api.schemas import Health
from shared.errors import DependencyUnavailable, Overloaded

router = APIRouter(tags=["health"])


# Both are async: they need no thread, so they are answered while all threads wait for a database.


@router.get("/livez", summary="Whether the process lives")
async def livez() -> Health:
    """Whether the process answers. No other part is asked."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Whether it can serve",
    responses=documented(DependencyUnavailable, Overloaded),
)
async def readyz(request: Request) -> Health:
    """Whether requests can be served: Postgres answers, its schema is not too old, no drain.

    Broker and store are not asked: an outage of either must not take all gateways away.
    """
    state = request.app.state
    await state.readiness.check(draining=state.draining.is_set())
    return Health(status="ok")
