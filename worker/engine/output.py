"""What the host lets in of an engine's words. The engine's process is not trusted."""

from __future__ import annotations

import json
from typing import Any

from shared.document import Recognition
from shared.errors import (
    EngineUnavailable,
    InternalError,
    InvalidOptions,
    OctavoError,
    PageTooLong,
    PageUnreadable,
)
from worker.engine.errors import ServerAway
from worker.pipeline.markup import clean

_ERRORS: dict[str, type[OctavoError]] = {
    error.code: error for error in (InvalidOptions, PageTooLong, PageUnreadable)
}
_ERRORS[EngineUnavailable.code] = ServerAway


def recognition(payload: bytes, *, max_bytes: int) -> Recognition:
    """What an engine says of a page, with clean text.

    Raises PageTooLong where it has more than `max_bytes`, InternalError where it is none.
    """
    if len(payload) > max_bytes:
        raise PageTooLong(f"The engine gave {len(payload)} bytes; {max_bytes} may be kept.")
    try:
        said = json.loads(payload.decode(errors="replace"))
        return Recognition.model_validate(_cleaned(said))
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        raise InternalError("The engine's answer is no recognition.") from error


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            return clean(value)
        case list():
            return [_cleaned(item) for item in value]
        case dict():
            return {key: _cleaned(item) for key, item in value.items()}
    return value


def error(code: str, detail: str) -> OctavoError:
    """The error of that code, where an engine may speak of it; an InternalError elsewhere."""
    known = _ERRORS.get(code)
    return known(clean(detail)) if known else InternalError("The engine failed on this page.")
