"""The store's clients before servers that misbehave."""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import obstore
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from shared import s3

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
    client = s3.client(url=url, region="us-east-1", access_key="a", secret_key="b", attempts=1)
    client.put_object(Bucket="bucket", Key="key", Body=b"body")


def fail_to_put(url: str) -> None:
    with pytest.raises(s3.CLIENT_ERRORS):
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


OK = b'HTTP/1.1 200 OK\r\nETag: "x"\r\nContent-Length: 0\r\n\r\n'


def objects(url: str, *, read_seconds: float = PATIENCE_SECONDS) -> S3Store:
    return s3.objects(
        url=url,
        region="us-east-1",
        bucket="bucket",
        access_key="a",
        secret_key="b",
        read_seconds=read_seconds,
    )


def test_an_object_is_signed_with_the_given_keys_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "another's")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another's")
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(OK)

    with server(serve) as url:
        obstore.put(objects(url), "key", b"body", use_multipart=False)

    assert asked[0].startswith(b"PUT /bucket/key ")
    assert b"Credential=a/" in asked[0]
    assert b"security-token" not in asked[0].lower()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n",
        b"",
    ],
    ids=["503", "half an answer", "no answer"],
)
def test_a_put_that_fails_is_tried_three_times(answer: bytes) -> None:
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        connection.sendall(answer)

    with server(serve) as url, pytest.raises(BaseError):
        obstore.put(objects(url), "key", b"body", use_multipart=False)

    assert len(asked) == 3


def test_a_server_that_is_silent_is_not_waited_for_without_end() -> None:
    ended = threading.Event()
    asked: list[bytes] = []

    def serve(connection: socket.socket) -> None:
        asked.append(connection.recv(65536))
        ended.wait(PATIENCE_SECONDS)

    with server(serve) as url:
        try:
            with pytest.raises(BaseError):
                obstore.get(objects(url, read_seconds=0.5), "key")
            assert len(asked) == 1  # who waits has waited enough
        finally:
            ended.set()


def test_an_object_whose_connection_breaks_is_read_on_from_there() -> None:
    def serve(connection: socket.socket) -> None:
        asked = connection.recv(65536)
        first = re.search(rb"range: bytes=(\d+)-", asked, re.IGNORECASE)
        head = b'Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\nETag: "x"\r\n'
        if first is None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n" + head + b"\r\n01234")
            return
        start = int(first[1])
        rest = b"0123456789"[start:]
        said = f"HTTP/1.1 206 Partial Content\r\nContent-Length: {len(rest)}\r\n"
        said += f"Content-Range: bytes {start}-9/10\r\n"
        connection.sendall(said.encode() + head + b"\r\n" + rest)

    with server(serve) as url:
        assert bytes(obstore.get(objects(url), "key").bytes()) == b"0123456789"
