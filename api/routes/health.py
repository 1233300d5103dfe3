"""Whether the gateway lives, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter, Request
from sqlalchemy import text

from api.deps import Transaction
from api.errors import documented
from api.schemas import Health
from shared.errors import DependencyUnavailable, Overloaded

router = APIRouter(tags=["health"])


@router.get("/livez", summary="Whether the process lives")
def livez() -> Health:
    """Whether the process answers. No other part is asked."""
    return Health(status="ok")


@router.get(
    "/readyz",
    summary="Whether it can serve",
    responses=documented(DependencyUnavailable, Overloaded),
)
def readyz(request: Request, session: Transaction) -> Health:
    """Whether requests can be served: the database answers and the gateway is not ending.

    Broker and store are not asked: an outage of either must not take all gateways away.
    """
    if request.app.state.draining.is_set():
        raise Overloaded("The gateway is ending.")
    session.execute(text("SELECT 1"))
    return Health(status="ok")
