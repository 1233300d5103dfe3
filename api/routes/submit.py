"""Submitting a document, as a raw body or as multipart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import TypeAdapter, ValidationError

from api import once, pace, present, submit, uploads
from api.admission import Admission
from api.deps import Acting, Once, Submitter
from api.errors import documented
from api.multipart import FIELD_BYTES, Multipart, Part
from api.schemas import Job
from api.uploads import Upload
from shared import crash_point, idempotency, storage
from shared.audit import Actor
from shared.db import transaction
from shared.errors import (
    DependencyUnavailable,
    EmptyUpload,
    IdempotencyInFlight,
    IdempotencyMismatch,
    InvalidOptions,
    JobDeleted,
    MalformedRequest,
    MissingScope,
    Overloaded,
    PromptNotAllowed,
    QuotaExceeded,
    RateLimited,
    RequestTooSlow,
    TooManyFailedLogins,
    TooManyInFlight,
    Unauthenticated,
    UnsupportedFormat,
    UploadTooLarge,
)
from shared.idempotency import Answered, Mark
from shared.keys import Caller
from shared.media import MediaType
from shared.options import SubmitOptions
from shared.page_range import MAX_LENGTH

PASSWORD_HEADER = "Octavo-Document-Password"  # noqa: S105 - a header's name

ROUTE = "submit"
"""What an Idempotency-Key is a key of."""

_JSON_OPTIONS = TypeAdapter(dict[str, Any])

router = APIRouter(tags=["jobs"])

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "description": "The document itself, told by its first bytes whatever its Content-Type says; "
    "or multipart with the part `options` (JSON) before the part `file`.",
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "options": {"$ref": "#/components/schemas/SubmitOptions"},
                    "file": {"type": "string", "format": "binary"},
                },
            },
            "encoding": {"options": {"contentType": "application/json"}},
            "example": {"options": {"pages": "1-3", "metadata": {"case": "A-17"}}, "file": "..."},
        },
        **{media_type.value: _BINARY for media_type in MediaType},
        "application/octet-stream": _BINARY,
    },
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "task": {"$ref": "#/components/schemas/Task"},
    "phrase": {"type": "string", "maxLength": 500},
    "prompt": {"type": "string", "maxLength": 4000},
    "mode": {"$ref": "#/components/schemas/Mode"},
    "engine": {"type": "string", "pattern": "^[a-z0-9-]{1,32}$"},
    "pages": {"type": "string", "maxLength": MAX_LENGTH},
    "priority": {"$ref": "#/components/schemas/Lane"},
}
_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "query",
        "description": f"With a raw body: the option `{name}`.",
        "schema": schema,
    }
    for name, schema in _OPTIONS.items()
] + [
    {
        "name": "filename",
        "in": "query",
        "description": "With a raw body: what the document is called.",
        "schema": {"type": "string"},
        "example": "contract.pdf",
    },
    {
        "name": PASSWORD_HEADER,
        "in": "header",
        "description": "With a raw body: opens an encrypted PDF. Percent-encoded UTF-8.",
        "schema": {"type": "string"},
    },
]


@router.post(
    "/v1/jobs",
    status_code=202,
    response_model=Job,
    summary="Submit a document",
    responses={
        202: {
            "headers": {"Location": {"schema": {"type": "string"}}, **once.REPLAYED_HEADER},
            "links": {
                operation: {
                    "operationId": operation,
                    "parameters": {"job_id": "$response.body#/id"},
                }
                for operation in ("get_job", "list_pages", "get_result", "cancel_job", "delete_job")
            },
        },
        **documented(
            MalformedRequest,
            Unauthenticated,
            MissingScope,
            PromptNotAllowed,
            UploadTooLarge,
            RequestTooSlow,
            TooManyFailedLogins,
            UnsupportedFormat,
            EmptyUpload,
            InvalidOptions,
            IdempotencyInFlight,
            IdempotencyMismatch,
            JobDeleted,
            RateLimited,
            TooManyInFlight,
            QuotaExceeded,
            Overloaded,
            DependencyUnavailable,
        ),
    },
    openapi_extra={"requestBody": _REQUEST_BODY, "parameters": _PARAMETERS},
)
async def submit_document(
    request: Request, caller: Submitter, actor: Acting, idempotency_key: Once = None
) -> Response:
    """Take a document and queue a job that reads it.

    The answer comes after the job is committed and its bytes are stored: from then on it reaches a
    final state, whatever process dies. Metadata of a raw body: `?metadata.case=A-17`.

    With an `Idempotency-Key` it may be sent again after any answer, or none: the same document with
    the same options and name comes to the same job.
    """
    limits, admission = request.app.state.limits, request.app.state.admission
    headers = {}
    with limits.uploads.taken("uploads"), admission.uploading(caller.tenant):
        refusal = admission.refusal(caller.tenant, more_bytes=_declared_bytes(request))
        begun: Mark | Answered | None = None
        if idempotency_key is not None:
            begun = await run_in_threadpool(
                once.begin, caller.tenant, ROUTE, idempotency_key, refusal
            )
        elif refusal is not None:
            raise refusal
        if isinstance(begun, Answered):
            submission = await _receive(request, pace.kept(request.stream()), None)
            job = await run_in_threadpool(_replay, caller, begun, submission)
            headers[once.REPLAYED] = "true"
        else:
            job = await _submit(request, caller, actor, begun)
    headers["Location"] = job.links.self_
    headers["Retry-After"] = str(present.retry_after_seconds(job))
    return Response(  # as JSON already: the framework would check a second time what we have made
        job.model_dump_json(by_alias=True),
        status_code=202,
        media_type="application/json",
        headers=headers,
    )


class _Submission:
    """A document in the store, and what is to be done with it."""

    def __init__(self, name: str, upload: Upload, options: SubmitOptions) -> None:
        self.name, self.upload, self.options = name, upload, options

    @property
    def fingerprint(self) -> bytes:
        """The same for the same document, with the same name, of which the same is asked."""
        password = self.options.password
        return once.fingerprint(
            self.upload.sha256,
            submit.clean_name(self.name),
            self.options.model_dump(mode="json", exclude={"password"}),
            password.get_secret_value() if password else None,
        )


async def _submit(request: Request, caller: Caller, actor: Actor, mark: Mark | None) -> Job:
    """The job that a document becomes; where it does not, nothing of it stays."""
    job_id = uuid4()
    try:
        with request.app.state.limits.store.guarded():
            body = once.kept(pace.kept(request.stream()), mark)
            submission = await _receive(request, body, storage.source_key(caller.tenant, job_id))
        crash_point.reach("upload", "stored")
        return await run_in_threadpool(
            _create, request.app.state.admission, caller, actor, job_id, submission, mark
        )
    except BaseException:
        if mark is not None:
            await run_in_threadpool(once.give_up, mark)
        raise


def _create(
    admission: Admission,
    caller: Caller,
    actor: Actor,
    job_id: UUID,
    submission: _Submission,
    mark: Mark | None,
) -> Job:
    with submit.or_nothing(caller.tenant, job_id), transaction(caller.tenant) as session:
        row = submit.submit(
            session,
            caller,
            job_id=job_id,
            name=submission.name,
            upload=submission.upload,
            options=submission.options,
            actor=actor,
        )
        job = present.job(session, row)
        if mark is not None:
            fingerprint = submission.fingerprint
            idempotency.answer(session, mark, job_id=job_id, fingerprint=fingerprint)
        admission.settle(session, caller.tenant)
        crash_point.reach("submit", "uncommitted")
    crash_point.reach("submit", "committed")
    return job


def _replay(caller: Caller, answered: Answered, submission: _Submission) -> Job:
    with transaction(caller.tenant) as session:
        fingerprint = submission.fingerprint
        row = once.replayed(session, caller.tenant, answered, fingerprint)
        return present.job(session, row)


def _declared_bytes(request: Request) -> int:
    """What the body says it is, one at least; what it is, is counted as it comes."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 1


async def _receive(request: Request, body: AsyncIterator[bytes], key: str | None) -> _Submission:
    content_type = request.headers.get("content-type", "")
    may_prompt = request.app.state.admission.may_prompt(request.state.caller.tenant)
    if content_type.startswith("multipart/"):
        return await _receive_multipart(Multipart(content_type, body), key, may_prompt=may_prompt)
    fields = dict(request.query_params)
    if "password" in fields:
        raise InvalidOptions(
            f"password: send it in the header {PASSWORD_HEADER}, not in the address"
        )
    name = fields.pop("filename", "document")
    if PASSWORD_HEADER in request.headers:
        fields["password"] = unquote(request.headers[PASSWORD_HEADER])
    options = _options(fields, may_prompt=may_prompt)
    return _Submission(name, await uploads.receive(body, key), options)


async def _receive_multipart(body: Multipart, key: str | None, *, may_prompt: bool) -> _Submission:
    fields: dict[str, str] = {}
    budget = FIELD_BYTES
    async for part in body.parts():
        if part.name == "file":
            received = await _receive_file(part, _options(fields, may_prompt=may_prompt), key)
            async with _or_taken_back(key):
                await _expect_end(body)
            return received
        value = fields[part.name] = await part.text(budget)
        budget -= len(part.name) + len(value)
        if budget < 0:
            raise MalformedRequest(f"All parts but the file: at most {FIELD_BYTES} bytes.")
    raise MalformedRequest("There is no part named file.")


async def _expect_end(body: Multipart) -> None:
    async for part in body.parts():
        raise MalformedRequest(f"Part {part.name} comes after the file; send it before.")


@asynccontextmanager
async def _or_taken_back(key: str | None) -> AsyncIterator[None]:
    """Take the document that lies under `key` out of the store where the block fails."""
    try:
        yield
    except BaseException:
        if key is not None:
            await run_in_threadpool(_take_back, key)
        raise


def _take_back(key: str) -> None:
    with suppress(DependencyUnavailable):  # then it is collected as an orphan
        storage.delete([key])


async def _receive_file(part: Part, options: SubmitOptions, key: str | None) -> _Submission:
    upload = await uploads.receive(part.chunks(), key)
    return _Submission(part.filename or "document", upload, options)


def _options(fields: dict[str, str], *, may_prompt: bool) -> SubmitOptions:
    """Options from their JSON, from fields of their own, or from both."""
    plain = {name: value for name, value in fields.items() if name != "options"}
    metadata = {
        name.removeprefix("metadata."): plain.pop(name)
        for name in list(plain)
        if name.startswith("metadata.")
    }
    try:
        given = _JSON_OPTIONS.validate_json(fields.get("options") or "{}") | plain
        if metadata:
            given["metadata"] = metadata
        options = SubmitOptions.model_validate(given)
    except ValidationError as error:
        raise InvalidOptions(_explained(error), errors=_errors(error)) from error
    submit.check(options, may_prompt=may_prompt)
    return options


def _errors(error: ValidationError) -> list[dict[str, str]]:
    return [
        {"pointer": "/" + "/".join(map(str, one["loc"])), "message": one["msg"]}
        for one in error.errors(include_input=False, include_url=False)
    ]


def _explained(error: ValidationError) -> str:
    return "; ".join(f"{one['pointer']}: {one['message']}" for one in _errors(error))
