"""The store's client before servers that misbehave."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from shared import storage

PATIENCE_SECONDS = 20


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does the same with every connection; its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_SECONDS)


def put(url: str) -> None:
    client = storage.client(url=url, region="us-east-1", access_key="a", secret_key="b", attempts=1)
    client.put_object(Bucket="bucket", Key="key", Body=b"body")


def fail_to_put(url: str) -> None:
    with pytest.raises(storage.CLIENT_ERRORS):
        put(url)


def test_a_put_does_not_ask_whether_it_may() -> None:
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with server(serve) as url:
        put(url)

    assert asked[0].startswith(b"PUT ")
    assert b"expect" not in asked[0].lower()


def test_a_put_ends_though_the_server_dies_in_the_middle_of_its_answer() -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 100 Continue\r\n")

    with server(serve) as url:
        attempt = threading.Thread(target=fail_to_put, args=(url,), daemon=True)
        attempt.start()
        attempt.join(PATIENCE_SECONDS)

    assert not attempt.is_alive()
