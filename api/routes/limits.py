"""What a tenant may have, and what it has."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import Reader, Transaction
from api.errors import documented
from api.schemas import Allowance, Limits
from shared import quotas
from shared.errors import DependencyUnavailable, MissingScope, RateLimited, Unauthenticated

router = APIRouter(tags=["limits"])


@router.get(
    "/v1/limits",
    summary="Get your limits",
    responses=documented(Unauthenticated, MissingScope, RateLimited, DependencyUnavailable),
)
def get_limits(caller: Reader, session: Transaction) -> Limits:
    """What you may have at once, and what you have. A submission beyond it is answered 429.

    A job, with its pages, counts until it has ended; the bytes of its document until it is deleted
    or expires.
    """
    found = quotas.standing(session, caller.tenant)
    return Limits(
        open_jobs=Allowance(limit=found.quota.open_jobs, used=found.open_jobs),
        open_pages=Allowance(limit=found.quota.open_pages, used=found.open_pages),
        stored_bytes=Allowance(limit=found.quota.stored_bytes, used=found.stored_bytes),
        requests_per_second=found.quota.requests_per_second,
        custom_prompts=found.custom_prompts,
    )
