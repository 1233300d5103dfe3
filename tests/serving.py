"""An application behind the real HTTP server, on a free port of this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from api.protocol import Protocol
from deploy.embedded import ports


@contextmanager
def served(app: Any) -> Iterator[int]:
    """Serve `app` as the gateway does; yields the port."""
    with ports.chosen(1) as [port]:
        config = uvicorn.Config(
            app, host=ports.HOST, port=port, http=Protocol, ws="none", log_config=None, backlog=1024
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
            yield port
        finally:
            server.should_exit = True
            thread.join()
