"""A way to Postgres that breaks right after a commit: done there, and never heard of here."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
"""The message by which a client asks for it."""


class CutAfterCommit:
    """Hands on what is sent and answered. Armed, it hands on one commit, awaits the answer, and
    closes both ends without a word."""

    def __init__(self, host: str, port: int) -> None:
        self.cuts = 0
        self._server = (host, port)
        self._commit: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def arm(self, commit: bytes = COMMIT) -> None:
        """Cut at the next message with these words, which commits."""
        self._commit = commit

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            back = threading.Thread(target=_pump, args=[server, client], daemon=True)
            back.start()
            with contextlib.suppress(OSError):
                while sent := client.recv(65536):
                    if self._commit and self._commit in sent:
                        self._commit = None
                        client.shutdown(socket.SHUT_RDWR)  # what comes back reaches nobody
                        server.sendall(sent)
                        server.shutdown(socket.SHUT_WR)
                        back.join()
                        self.cuts += 1
                        return
                    server.sendall(sent)
                server.shutdown(socket.SHUT_WR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while heard := source.recv(65536):
            with contextlib.suppress(OSError):
                target.sendall(heard)
        target.shutdown(socket.SHUT_WR)
