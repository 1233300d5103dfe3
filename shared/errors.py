"""Every error that somebody can act on.

A class states the facts: its stable `code`, the HTTP `status` it has at the gateway, whether the
same request may succeed later (`retryable`), whose matter it is (`category`) and where it arises
(`phase`). Its docstring is its title. Nothing else decides on these.

    OctavoError
    ├── of a request:   MalformedRequest, InvalidOptions, Unauthenticated, MissingScope, NotFound ...
    ├── of a tenant:    RateLimited, TooManyInFlight, QuotaExceeded
    ├── of a document:  DocumentInvalid, DocumentEncrypted, DocumentTooExpensive, TooManyPages ...
    ├── of a page:      PageTimeout, PageCrashedEngine, PageTooLong
    └── of a part:      DependencyUnavailable, EngineUnavailable, Overloaded, InternalError
"""

from __future__ import annotations

from typing import Any, ClassVar


class OctavoError(Exception):
    """Something went wrong that has a name."""

    code: ClassVar[str]
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    category: ClassVar[str] = "policy"
    phase: ClassVar[str] = "admission"
    blames: bool = True
    """Whether the work at hand is what went wrong; if not, its attempt counts as no failure."""

    def __init__(
        self, detail: str = "", *, retry_after_seconds: int | None = None, **extra: Any
    ) -> None:
        """`detail` says what was wrong this time and how to mend it; it is shown to the tenant."""
        super().__init__(detail or self.title())
        self.detail = detail or self.title()
        self.retry_after_seconds = retry_after_seconds
        self.extra = extra

    @classmethod
    def title(cls) -> str:
        """The first line of the docstring: what went wrong, in general."""
        return (cls.__doc__ or cls.__name__).partition("\n")[0]

    def facts(self) -> dict[str, Any]:
        """What a row keeps and a reader is told of this error, in the words of RFC 9457."""
        return {
            "code": self.code,
            "title": self.title(),
            "detail": self.detail.replace("\x00", ""),  # a row cannot hold it
            "retryable": self.retryable,
            "category": self.category,
            "phase": self.phase,
        }


# Of a request


class MalformedRequest(OctavoError):
    """The request cannot be read."""

    code = "malformed_request"
    status = 400


class InvalidOptions(OctavoError):
    """An option of the request is not allowed."""

    code = "invalid_options"
    status = 422


class Unauthenticated(OctavoError):
    """There is no valid API key in the Authorization header."""

    code = "unauthenticated"
    status = 401


class TooManyFailedLogins(OctavoError):
    """Too many logins from this address, or with this key, have failed; wait, then try again."""

    code = "too_many_failed_logins"
    status = 429
    retryable = True


class MissingScope(OctavoError):
    """The API key does not have the scope that this needs."""

    code = "missing_scope"
    status = 403


class PromptNotAllowed(OctavoError):
    """The tenant may not send prompts of its own."""

    code = "prompt_not_allowed"
    status = 403


class NotFound(OctavoError):
    """There is no such thing, or it is not yours."""

    code = "not_found"
    status = 404


class MethodNotAllowed(OctavoError):
    """The route exists, but not with this method."""

    code = "method_not_allowed"
    status = 405


class RequestTooLarge(OctavoError):
    """The request has a larger body than this route takes."""

    code = "request_too_large"
    status = 413


class HeadersTooLarge(OctavoError):
    """The address and headers have more than 64 KiB together, or the headers are more than 100."""

    code = "headers_too_large"
    status = 431


class RequestTooSlow(OctavoError):
    """The body of the request comes too slowly."""

    code = "request_too_slow"
    status = 408
    retryable = True


class UploadTooLarge(OctavoError):
    """The document has more bytes than one upload may have."""

    code = "upload_too_large"
    status = 413


class EmptyUpload(OctavoError):
    """The document has no bytes."""

    code = "empty_upload"
    status = 422


class UnsupportedFormat(OctavoError):
    """The bytes are no document of a type that Octavo reads."""

    code = "unsupported_format"
    status = 415


class IdempotencyInFlight(OctavoError):
    """A request with this Idempotency-Key is still under way."""

    code = "idempotency_in_flight"
    status = 409
    retryable = True


class IdempotencyMismatch(OctavoError):
    """The Idempotency-Key belongs to an earlier request that asked for something else."""

    code = "idempotency_mismatch"
    status = 422


class RateLimited(OctavoError):
    """The tenant sends more requests a second than it may."""

    code = "rate_limited"
    status = 429
    retryable = True
    category = "capacity"


class TooManyInFlight(OctavoError):
    """The tenant has as many jobs, pages, uploads or watched pages under way as it may."""

    code = "too_many_in_flight"
    status = 429
    retryable = True
    category = "capacity"


class QuotaExceeded(OctavoError):
    """The tenant has as many bytes stored as it may; delete jobs, or let them expire."""

    code = "quota_exceeded"
    status = 429
    retryable = True


class JobFinished(OctavoError):
    """The job has ended, so this is no longer possible."""

    code = "job_finished"
    status = 409


class JobNotFinished(OctavoError):
    """The job has not ended yet, so this is not possible yet."""

    code = "job_not_finished"
    status = 409
    retryable = True


class NothingToRetry(OctavoError):
    """None of the job's pages is among those to be read again."""

    code = "nothing_to_retry"
    status = 409


class JobFailed(OctavoError):
    """The job failed, so it has no result; its finished pages stay readable."""

    code = "job_failed"
    status = 409


class JobCancelled(OctavoError):
    """The job was cancelled, so it has no result; its finished pages stay readable."""

    code = "job_cancelled"
    status = 409


class PageNotFinished(OctavoError):
    """The page has not been read yet."""

    code = "page_not_finished"
    status = 409
    retryable = True


class ResultExpired(OctavoError):
    """The result was kept as long as its retention says, and is gone."""

    code = "result_expired"
    status = 410


class JobDeleted(OctavoError):
    """The job was deleted with everything that belonged to it."""

    code = "job_deleted"
    status = 410


# Of a document: what needs the file opened is a job's failure, not an answer of the gateway


class DocumentInvalid(OctavoError):
    """The document is broken and cannot be read."""

    code = "document_invalid"
    status = 422
    phase = "source"


class DocumentEncrypted(OctavoError):
    """The document is encrypted, and the password is missing or wrong."""

    code = "document_encrypted"
    status = 422
    phase = "source"


class DocumentTooExpensive(OctavoError):
    """Opening or rendering takes more memory or time than one document may take."""

    code = "document_too_expensive"
    status = 422
    phase = "source"


class TooManyPages(OctavoError):
    """The document has more pages than one job may have."""

    code = "too_many_pages"
    status = 422
    phase = "source"


class ImageDimensions(OctavoError):
    """The image is too large, too small, or too long for its width."""

    code = "image_dimensions"
    status = 422
    phase = "source"


class InvalidPageRange(OctavoError):
    """The page range chooses no page of the document."""

    code = "invalid_page_range"
    status = 422
    phase = "source"


class SourceUnavailable(OctavoError):
    """The document cannot be had from where it is."""

    code = "source_unavailable"
    status = 503
    retryable = True
    category = "source_unavailable"
    phase = "source"


class PoisonDocument(OctavoError):
    """Preparing the document ended its worker again and again."""

    code = "poison_document"
    status = 422
    category = "backend_failure"
    phase = "source"


class NoPageReadable(OctavoError):
    """None of the document's pages could be read; each page says why."""

    code = "no_page_readable"
    status = 422
    phase = "execution"


class DeadlineExceeded(OctavoError):
    """The job did not end within the time that it had."""

    code = "deadline_exceeded"
    status = 504
    retryable = True
    category = "timeout"
    phase = "orchestration"


# Of a page


class PageTimeout(OctavoError):
    """Reading the page took longer than one page may take."""

    code = "page_timeout"
    status = 504
    category = "timeout"
    phase = "execution"


class PageCrashedEngine(OctavoError):
    """The engine died each time it read this page."""

    code = "page_crashed_engine"
    category = "inference_failure"
    phase = "execution"


class PageTooLong(OctavoError):
    """The engine says more of this page than can be kept."""

    code = "page_too_long"
    category = "inference_failure"
    phase = "execution"


class PageUnreadable(OctavoError):
    """The engine cannot read this page's image."""

    code = "page_unreadable"
    category = "inference_failure"
    phase = "execution"


# Of a part of the platform


class EngineUnavailable(OctavoError):
    """The engine is not there, or died while it read this page."""

    code = "engine_unavailable"
    status = 503
    retryable = True
    category = "capacity"
    phase = "execution"


class EngineDied(EngineUnavailable):
    """The engine died while it held this page."""

    def __init__(self, detail: str = "", *, suspect: bool, suspects: int = 0) -> None:
        """`suspect`: the page was being touched, so it may be what killed the engine.

        `suspects` counts all such pages: with 1, this page was alone.
        """
        super().__init__(detail)
        self.suspects = suspects
        self.blames = suspect


class DependencyUnavailable(OctavoError):
    """A part that this needs does not answer; try again."""

    blames = False
    code = "dependency_unavailable"
    status = 503
    retryable = True
    category = "backend_failure"
    phase = "orchestration"


class DatabaseUnavailable(DependencyUnavailable):
    """The database does not answer."""


class DatabaseBusy(DatabaseUnavailable):
    """The database is there, and did not get to a statement in time: others were before it."""


class Overloaded(OctavoError):
    """The platform has as much to do as it can take; try again later."""

    code = "overloaded"
    status = 503
    retryable = True
    category = "capacity"


class InternalError(OctavoError):
    """A fault of ours; the request id finds it in the log."""

    code = "internal_error"
    status = 500
    retryable = True
    category = "internal"
    phase = "orchestration"


def restored(code: str, detail: str) -> OctavoError:
    """The error whose facts a row keeps; NoPageReadable where no error has that code any more."""
    kinds = {kind.code: kind for kind in OctavoError.__subclasses__()}
    return kinds.get(code, NoPageReadable)(detail)
