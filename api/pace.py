"""How fast a body must come: who sends a byte a minute must not hold a place for a day."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from shared.config import settings
from shared.errors import RequestTooSlow


async def kept(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks of an upload as they come; raises RequestTooSlow for one that does not come.

    A sender has some seconds of patience, which it uses up while it is waited for, and earns anew
    with every byte, but never beyond what it began with. What happens to the bytes here, such as
    storing them, costs it nothing.
    """
    allowed = settings()
    patience = allowed.upload_patience_seconds
    until = time.monotonic() + allowed.max_upload_seconds
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(min(patience, until - began)):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise RequestTooSlow(
                f"At least {allowed.min_upload_bytes_per_second} bytes a second, "
                f"and all of it within {allowed.max_upload_seconds:.0f} s."
            ) from error
        if chunk is None:
            return
        earned = len(chunk) / allowed.min_upload_bytes_per_second
        spent = time.monotonic() - began
        patience = min(allowed.upload_patience_seconds, patience - spent + earned)
        yield chunk
