"""The gateway: HTTP in, rows and objects out. It needs Postgres and the store, and no broker."""

from __future__ import annotations

import threading
from importlib.metadata import version

from fastapi import FastAPI

from api import errors
from api.admission import Admission
from api.known_callers import KnownCallers
from api.limits import Limits
from api.logins import FailedLogins
from api.middleware import BodyLimit, Correlation, Farewell
from api.readiness import Readiness
from api.routes import health, jobs, limits, results, submit, watching
from api.schemas import PageReset, PageText
from shared.config import settings
from shared.options import SubmitOptions

DESCRIPTION = """
Documents in, recognised text out. Submit a document and get a job; ask the job how far it is, or
wait for it; read its pages as they are finished, and the whole document at the end.

A `202` means that the job is committed: it reaches a final state, whatever process dies. Errors
are problem details (RFC 9457) with a stable `code`, and `retryable` says whether to try again.
"""


def create_app() -> FastAPI:
    """The application of one gateway process."""
    app = FastAPI(
        title="Octavo",
        version=version("octavo"),
        description=DESCRIPTION,
        redoc_url=None,
        redirect_slashes=False,  # it would lead to whatever Host the request names
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.draining = threading.Event()
    app.state.readiness = Readiness()
    app.state.limits = Limits()
    app.state.known_callers = KnownCallers()
    app.state.logins = FailedLogins(settings().max_failed_logins)
    app.state.admission = Admission()
    app.add_middleware(BodyLimit)
    app.add_middleware(Farewell, draining=app.state.draining)
    app.add_middleware(Correlation)
    errors.register(app)
    for module in (submit, jobs, results, watching, limits, health):
        app.include_router(module.router)
    _complete_openapi(app)
    return app


def _complete_openapi(app: FastAPI) -> None:
    """Add what FastAPI cannot see: the options inside a multipart body, and events."""
    known = app.openapi()["components"]["schemas"]
    options = SubmitOptions.model_json_schema(ref_template="#/components/schemas/{model}")
    known.update(options.pop("$defs", {}))
    known["SubmitOptions"] = options
    known |= {model.__name__: model.model_json_schema() for model in (PageText, PageReset)}
