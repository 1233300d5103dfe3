"""Serving the gateway: uvicorn, which says when it is ready and ends in order."""

from __future__ import annotations

import resource
import socket
import time
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.protocol import Protocol
from shared import db
from shared.config import settings

DRAIN_SECONDS = 15
"""For the requests that are still in progress when no more are taken."""
STATEMENT_SECONDS = 2
"""Somebody waits for each answer; workers have more patience."""

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """A server that turns unready, serves on while balancers notice, and then closes."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app
        self._told_at: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print("ready", flush=True)  # noqa: T201 - whoever started the process waits for this

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002 - uvicorn's
        """Begin to end; the second time at once."""
        self._app.state.draining.set()
        self.should_exit = self._told_at is not None
        self._told_at = self._told_at or time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; True ends the serving."""
        if self._told_at is not None:
            self.should_exit |= time.monotonic() - self._told_at >= settings().unready_seconds
        return await super().on_tick(counter)


def allow_open_files() -> None:
    """Have as many open files as this user may; most begin with 1,024, a connection being one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def serve(host: str, port: int) -> None:
    """Serve until told to end; requests in progress get their answers.

    Raises InvalidSettings where the database would show this process the rows of all tenants.
    """
    allow_open_files()
    db.limit_statements(STATEMENT_SECONDS)
    db.refuse_unbound_role()
    app = create_app()
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Protocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    _Server(config, app).run()
