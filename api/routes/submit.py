"""Submitting a document, as a raw body or as multipart."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

from fastapi import APIRouter, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from api import pace, present, submit, uploads
from api.deps import Acting, Submitter
from api.errors import documented
from api.multipart import FIELD_BYTES, Multipart, Part
from api.schemas import Job
from api.uploads import Upload
from shared import storage
from shared.audit import Actor
from shared.db import transaction
from shared.errors import (
    DependencyUnavailable,
    EmptyUpload,
    InvalidOptions,
    MalformedRequest,
    MissingScope,
    Overloaded,
    RequestTooSlow,
    TooManyFailedLogins,
    Unauthenticated,
    UnsupportedFormat,
    UploadTooLarge,
)
from shared.keys import Caller
from shared.media import MediaType
from shared.options import SubmitOptions

PASSWORD_HEADER = "Octavo-Document-Password"  # noqa: S105 - a header's name

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
_PARAMETERS: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "query",
        "description": f"With a raw body: the option `{name}`.",
        "schema": {"type": "string"},
    }
    for name in ("task", "engine", "pages", "priority")
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
        202: {"headers": {"Location": {"schema": {"type": "string"}}}},
        **documented(
            MalformedRequest,
            Unauthenticated,
            MissingScope,
            UploadTooLarge,
            RequestTooSlow,
            TooManyFailedLogins,
            UnsupportedFormat,
            EmptyUpload,
            InvalidOptions,
            Overloaded,
            DependencyUnavailable,
        ),
    },
    openapi_extra={"requestBody": _REQUEST_BODY, "parameters": _PARAMETERS},
)
async def submit_document(request: Request, caller: Submitter, actor: Acting) -> Response:
    """Take a document and queue a job that reads it.

    The answer comes after the job is committed and its bytes are stored: from then on it reaches a
    final state, whatever process dies. Metadata of a raw body: `?metadata.case=A-17`.
    """
    job_id = uuid4()
    key = storage.source_key(caller.tenant, job_id)
    with request.app.state.limits.uploads.taken("uploads"):
        submission = await _receive(request, key)
    job = await run_in_threadpool(_create, caller, actor, job_id, submission)
    return Response(  # as JSON already: the framework would check a second time what we have made
        job.model_dump_json(by_alias=True),
        status_code=202,
        media_type="application/json",
        headers={
            "Location": job.links.self_,
            "Retry-After": str(present.retry_after_seconds(job)),
        },
    )


class _Submission:
    """A document in the store, and what is to be done with it."""

    def __init__(self, name: str, upload: Upload, options: SubmitOptions) -> None:
        self.name, self.upload, self.options = name, upload, options


def _create(caller: Caller, actor: Actor, job_id: UUID, submission: _Submission) -> Job:
    with transaction(caller.tenant) as session:
        row = submit.submit(
            session,
            caller,
            job_id=job_id,
            name=submission.name,
            upload=submission.upload,
            options=submission.options,
            actor=actor,
        )
        return present.job(session, row)


async def _receive(request: Request, key: str) -> _Submission:
    content_type = request.headers.get("content-type", "")
    body = pace.kept(request.stream())
    if content_type.startswith("multipart/"):
        return await _receive_multipart(Multipart(content_type, body), key)
    fields = dict(request.query_params)
    if "password" in fields:
        raise InvalidOptions(
            f"password: send it in the header {PASSWORD_HEADER}, not in the address"
        )
    name = fields.pop("filename", "document")
    if PASSWORD_HEADER in request.headers:
        fields["password"] = unquote(request.headers[PASSWORD_HEADER])
    options = _options(fields)
    return _Submission(name, await uploads.receive(body, key), options)


async def _receive_multipart(body: Multipart, key: str) -> _Submission:
    fields: dict[str, str] = {}
    budget = FIELD_BYTES
    received: _Submission | None = None
    async for part in body.parts():
        if received is not None:
            await run_in_threadpool(storage.delete_prefix, key)
            raise MalformedRequest(f"Part {part.name} comes after the file; send it before.")
        if part.name == "file":
            received = await _receive_file(part, _options(fields), key)
        else:
            value = fields[part.name] = await part.text(budget)
            budget -= len(part.name) + len(value)
            if budget < 0:
                raise MalformedRequest(f"All parts but the file: at most {FIELD_BYTES} bytes.")
    if received is None:
        raise MalformedRequest("There is no part named file.")
    return received


async def _receive_file(part: Part, options: SubmitOptions, key: str) -> _Submission:
    upload = await uploads.receive(part.chunks(), key)
    return _Submission(part.filename or "document", upload, options)


def _options(fields: dict[str, str]) -> SubmitOptions:
    """Options from their JSON, from fields of their own, or from both."""
    plain = {name: value for name, value in fields.items() if name != "options"}
    metadata = {
        name.removeprefix("metadata."): plain.pop(name)
        for name in list(plain)
        if name.startswith("metadata.")
    }
    try:
        options = SubmitOptions.model_validate_json(fields.get("options") or "{}")
        given = options.model_dump(exclude_unset=True) | plain
        if metadata:
            given["metadata"] = metadata
        options = SubmitOptions.model_validate(given)
    except ValidationError as error:
        raise InvalidOptions(_explained(error), errors=_errors(error)) from error
    submit.check(options)
    return options


def _errors(error: ValidationError) -> list[dict[str, str]]:
    return [
        {"pointer": "/" + "/".join(map(str, one["loc"])), "message": one["msg"]}
        for one in error.errors(include_input=False, include_url=False)
    ]


def _explained(error: ValidationError) -> str:
    return "; ".join(f"{one['pointer']}: {one['message']}" for one in _errors(error))
