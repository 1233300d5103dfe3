"""Serving the gateway: uvicorn, which says when it is ready and ends in order."""

from __future__ import annotations

import socket
from types import FrameType

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.protocol import Protocol
from shared.db import refuse_unbound_role

DRAIN_SECONDS = 15


class _Server(uvicorn.Server):
    """A server that turns unready before it closes, and announces itself."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print("ready", flush=True)  # noqa: T201 - whoever started the process waits for this

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.draining.set()
        super().handle_exit(sig, frame)


def serve(host: str, port: int) -> None:
    """Serve until told to end; requests in progress get their answers.

    Raises InvalidSettings where the database would show this process the rows of all tenants.
    """
    refuse_unbound_role()
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
        h11_max_incomplete_event_size=64 * 1024,
    )
    _Server(config, app).run()
