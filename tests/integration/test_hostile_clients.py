"""Who guesses keys, sends slowly or sends nonsense is told so, and costs nobody else anything."""

import contextlib
import http.client
import json
import resource
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import psutil
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api import logins, middleware, protocol
from api.app import create_app
from api.known_callers import KEPT_SECONDS
from api.run import allow_open_files
from deploy.embedded import ports
from shared import keys, storage
from shared.config import settings
from shared.db import transaction
from shared.errors import DependencyUnavailable, TooManyFailedLogins, Unauthenticated
from shared.roles import Role
from tests import acting, documents
from tests.factory import authorization
from tests.serving import served

PDF = documents.pdf(pages=1)
GET = b"GET /livez HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
FLOOD_BYTES = 64 * 1024**2


class TestFailedLogins:
    @pytest.fixture(autouse=True)
    def _no_time_passes(self, gateway: TestClient) -> None:
        most = settings().max_failed_logins
        gateway.app.state.logins = logins.FailedLogins(most, clock=lambda: 0.0)  # type: ignore[attr-defined]

    def client(self, gateway: TestClient, address: str) -> TestClient:
        return TestClient(gateway.app, client=(address, 1))

    def guess(self, key_id: str | None = None) -> dict[str, str]:
        """A key that looks right and is not."""
        right = authorization()["Authorization"]
        name = key_id or right.split("_")[2]
        secret = "A" * 43
        check = keys._checksum(name, secret)  # noqa: SLF001
        return {"Authorization": f"Bearer octavo_live_{name}_{secret}{check}"}

    def test_who_guesses_is_told_to_wait_and_others_are_not(self, gateway: TestClient) -> None:
        guesser, other = self.client(gateway, "192.0.2.1"), self.client(gateway, "192.0.2.2")
        guesses = self.guess()

        answers = [guesser.get("/v1/jobs", headers=guesses) for _ in range(1000)]

        codes = [answer.status_code for answer in answers]
        most = settings().max_failed_logins
        assert codes == [401] * most + [429] * (1000 - most)
        refused = answers[-1]
        assert refused.json()["code"] == "too_many_failed_logins"
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert other.get("/v1/jobs", headers=authorization()).status_code == 200

    def test_a_right_key_passes_from_where_many_were_wrong(self, gateway: TestClient) -> None:
        client, right = self.client(gateway, "192.0.2.1"), authorization()
        key_id = right["Authorization"].split("_")[2]
        for _ in range(settings().max_failed_logins + 1):
            refused = client.get("/v1/jobs", headers=self.guess(key_id))
        assert refused.status_code == 429

        assert client.get("/v1/jobs", headers=right).status_code == 200
        assert client.get("/v1/jobs", headers=self.guess(key_id)).status_code == 429

    def test_a_key_that_was_right_here_passes_whoever_guesses_beside_it(
        self, gateway: TestClient
    ) -> None:
        mine = authorization()
        key_id = mine["Authorization"].split("_")[2]
        client = self.client(gateway, "192.0.2.1")
        assert client.get("/v1/jobs", headers=mine).status_code == 200

        for number in range(
            settings().max_failed_logins
        ):  # at the same address, and elsewhere with the same key's id
            client.get("/v1/jobs", headers=self.guess())
            elsewhere = self.client(gateway, f"198.51.100.{number}")
            elsewhere.get("/v1/jobs", headers=self.guess(key_id))

        assert client.get("/v1/jobs", headers=mine).status_code == 200
        other = self.client(gateway, "203.0.113.1")
        assert other.get("/v1/jobs", headers=self.guess(key_id)).status_code == 429

    def test_a_key_that_was_right_and_is_revoked_is_right_no_more(
        self, gateway: TestClient
    ) -> None:
        client, mine = self.client(gateway, "192.0.2.1"), authorization()
        assert client.get("/v1/jobs", headers=mine).status_code == 200
        with transaction() as session:
            keys.revoke(session, mine["Authorization"].split("_")[2])
        time.sleep(KEPT_SECONDS)

        most = settings().max_failed_logins
        answers = [client.get("/v1/jobs", headers=mine).status_code for _ in range(most + 1)]

        assert answers == [401] * most + [429]

    def test_no_key_at_all_is_no_guess(self, gateway: TestClient) -> None:
        client = self.client(gateway, "192.0.2.1")

        assert {client.get("/v1/jobs").status_code for _ in range(100)} == {401}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> acting.App:
    """The gateway's application, with little patience."""
    chosen = settings().model_copy(
        update={
            "upload_patience_seconds": 1.0,
            "min_upload_bytes_per_second": 10_000,
            "max_upload_seconds": 3.0,
        }
    )
    monkeypatch.setattr("api.pace.settings", lambda: chosen)
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 1.0)
    # Where this process has no core for longer than that, a client that sends loses its answer.
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 1.0)
    monkeypatch.setattr(middleware, "SMALL_BODY_SECONDS", 1.0)
    return acting.App(create_app(), Role.GATEWAY)


@pytest.fixture
def port(app: acting.App) -> Iterator[int]:
    with served(app) as chosen:
        yield chosen


@contextlib.contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    with socket.create_connection((ports.HOST, port), timeout=20) as opened:
        yield opened


def head(method: str, path: str, *fields: str) -> bytes:
    key = authorization()["Authorization"]
    lines = [f"{method} {path} HTTP/1.1", "Host: here", f"Authorization: {key}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            received += piece
    return received


def status_of_answer(connection: socket.socket) -> int:
    """That of the next answer, read whole: it may come in pieces."""
    with http.client.HTTPResponse(connection) as answer:
        answer.begin()
        answer.read()
        return answer.status


def problem(answer: bytes) -> tuple[int, dict[str, Any]]:
    top, _, body = answer.partition(b"\r\n\r\n")
    return int(top.split()[1]), json.loads(body)


class TestSlowSenders:
    def test_an_upload_that_stops_is_answered_and_cut_off(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(head("POST", "/v1/jobs", "Content-Length: 100000") + PDF[:50])
            began = time.monotonic()
            answer = everything(connection)

        status, said = problem(answer)
        assert (status, said["code"], said["retryable"]) == (408, "request_too_slow", True)
        assert b"connection: close" in answer.lower()
        assert 0.9 < time.monotonic() - began < 3

    def test_an_upload_below_the_rate_is_cut_off_though_it_goes_on(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(head("POST", "/v1/jobs", "Content-Length: 100000") + PDF[:99])
            began = time.monotonic()
            _drip(connection, b"x" * 100, every=0.1)  # a tenth of what is wanted
            assert problem(everything(connection))[1]["code"] == "request_too_slow"

        assert 0.9 < time.monotonic() - began < 3

    def test_a_fast_beginning_buys_no_long_pause(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(head("POST", "/v1/jobs", "Content-Length: 2000000"))
            connection.sendall(PDF.ljust(1_000_000, b"\n"))  # a hundred seconds' worth
            began = time.monotonic()
            assert problem(everything(connection))[0] == 408

        assert time.monotonic() - began < 3

    def test_an_upload_at_the_rate_has_the_whole_deadline_and_no_more(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(head("POST", "/v1/jobs", "Content-Length: 10000000") + PDF[:99])
            began = time.monotonic()
            _drip(connection, b"x" * 3000, every=0.1)
            assert problem(everything(connection))[0] == 408

        assert 2.8 < time.monotonic() - began < 6

    def test_a_multipart_upload_is_no_way_around(self, port: int) -> None:
        kind = "Content-Type: multipart/form-data; boundary=b"
        with connected(port) as connection:
            connection.sendall(head("POST", "/v1/jobs", kind, "Transfer-Encoding: chunked"))
            connection.sendall(b"5\r\n--b\r\n\r\n")
            assert problem(everything(connection))[0] == 408

    def test_a_small_body_that_does_not_come_is_cut_off(self, port: int) -> None:
        path = f"/v1/jobs/job_{uuid4().hex}/retry"
        kind = "Content-Type: application/json"
        with connected(port) as connection:
            connection.sendall(head("POST", path, kind, "Content-Length: 20") + b"{")
            assert problem(everything(connection))[1]["code"] == "request_too_slow"

    @pytest.mark.parametrize(
        "begun", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: a\r\n"]
    )
    def test_headers_that_do_not_end_hold_no_connection(self, port: int, begun: bytes) -> None:
        with connected(port) as connection:
            connection.sendall(begun)
            began = time.monotonic()
            assert everything(connection) == b""

        assert time.monotonic() - began < 3

    def test_a_body_that_was_refused_holds_no_connection(self, port: int) -> None:
        with connected(port) as connection:
            nobody = b"POST /v1/jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n"
            connection.sendall(nobody)
            _drip(connection, b"x", every=0.1)
            assert problem(everything(connection))[0] == 401

    @pytest.mark.parametrize(
        ("begun", "rest"),
        [
            (b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n"),
            (b"POST /livez HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", b"x"),
        ],
        ids=["an empty line", "the end of a body that was refused"],
    )
    def test_what_is_no_request_after_an_answer_holds_no_connection(
        self, port: int, begun: bytes, rest: bytes
    ) -> None:
        with connected(port) as connection:
            connection.sendall(begun)
            status_of_answer(connection)
            connection.sendall(rest)
            assert everything(connection) == b""  # a timeout where it stays open

    def test_a_connection_that_is_used_well_is_kept(self, port: int) -> None:
        with connected(port) as connection:
            for _ in range(4):
                connection.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
                assert status_of_answer(connection) == 200
                time.sleep(0.5)  # longer in all than one request may take

    @pytest.fixture
    def many_files(self) -> Iterator[None]:
        """What the gateway allows itself at its start; with 1,024 there are too few."""
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        allow_open_files()
        yield
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    def test_five_hundred_slow_senders_keep_nobody_out(
        self, port: int, many_files: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(protocol, "HEADER_SECONDS", 60.0)  # all at once they take a while
        process = psutil.Process()
        before = process.memory_info().rss
        begun = head("POST", "/v1/jobs", "Content-Length: 1000000")
        with contextlib.ExitStack() as stack:
            slow = [stack.enter_context(connected(port)) for _ in range(500)]
            for connection in slow:
                connection.sendall(begun)
            with connected(port) as honest:
                honest.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
                assert honest.recv(65536).startswith(b"HTTP/1.1 200")
            statuses = [problem(everything(connection))[0] for connection in slow]
            with connected(port) as honest:
                honest.sendall(head("POST", "/v1/jobs", f"Content-Length: {len(PDF)}") + PDF)
                assert honest.recv(65536).startswith(b"HTTP/1.1 202")

        assert set(statuses) == {408, 429}
        assert process.memory_info().rss - before < 100 * 1024**2


class TestBrokenEnds:
    """Of a multipart upload whose file has come whole, and is in the store."""

    KIND = "Content-Type: multipart/form-data; boundary=b"
    FILE = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'
        + PDF
        + b"\r\n--b\r\nContent-Disp"
    )

    @pytest.fixture(autouse=True)
    def _empty_store(self) -> None:
        storage.delete_prefix("")

    def stored(self) -> list[str]:
        return [found.key for objects in storage.listing() for found in objects]

    def wait_until(self, holds: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.02)

    @contextlib.contextmanager
    def stored_by(self, port: int) -> Iterator[socket.socket]:
        """The connection of an upload of which the end is still to come."""
        with connected(port) as connection:
            connection.sendall(head("POST", "/v1/jobs", self.KIND, "Content-Length: 99999"))
            connection.sendall(self.FILE)
            self.wait_until(self.stored)
            yield connection

    def test_of_who_hangs_up_nothing_stays(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.pace.settings", settings)  # with all their patience
        with self.stored_by(port):
            pass

        self.wait_until(lambda: not self.stored())

    def test_of_who_sends_nonsense_nothing_stays(
        self, port: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("api.pace.settings", settings)
        with self.stored_by(port) as connection:
            connection.sendall(b"\x00\r\n")
            assert problem(everything(connection))[1]["code"] == "malformed_request"

        assert self.stored() == []

    def test_of_who_stalls_nothing_stays(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(head("POST", "/v1/jobs", self.KIND, "Content-Length: 99999"))
            connection.sendall(self.FILE)
            assert problem(everything(connection))[1]["code"] == "request_too_slow"

        assert self.stored() == []

    def test_a_store_that_keeps_it_changes_no_answer(
        self, gateway: TestClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(_: list[str]) -> None:
            raise DependencyUnavailable

        monkeypatch.setattr(storage, "delete", refuse)
        answer = gateway.post(
            "/v1/jobs", files=[("file", ("a.pdf", PDF)), ("task", (None, "text"))]
        )

        assert (answer.status_code, answer.json()["code"]) == (400, "malformed_request")


def _drip(connection: socket.socket, piece: bytes, *, every: float) -> None:
    """Send until something is answered."""
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        with contextlib.suppress(ConnectionError):
            while not selector.select(every):
                connection.sendall(piece)


class TestEndlessHeads:
    @pytest.fixture(autouse=True)
    def _much_time(self, app: acting.App, monkeypatch: pytest.MonkeyPatch) -> None:
        """What ends these is what they send."""
        monkeypatch.setattr(protocol, "HEADER_SECONDS", 600.0)
        monkeypatch.setattr(protocol, "LINGER_SECONDS", 600.0)
        monkeypatch.setattr(middleware, "SMALL_BODY_SECONDS", 600.0)

    @pytest.mark.parametrize(
        "begun",
        [
            GET + b"X: " + b"x" * protocol.HEAD_BYTES + b"\r\n\r\n",
            GET + b"X: y\r\n" * protocol.FIELDS + b"\r\n",
            b"GET /livez?" + b"x" * protocol.HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n",
            GET + (b"X: " + b"x" * 1000 + b"\r\n") * 70 + b"\r\n",
        ],
        ids=["a long value", "many fields", "a long address", "long fields"],
    )
    @pytest.mark.parametrize("piece_bytes", [1_000_000, 5000])
    def test_a_head_that_is_too_large_is_told_so(
        self, port: int, begun: bytes, piece_bytes: int
    ) -> None:
        with connected(port) as connection:
            with contextlib.suppress(ConnectionError):
                for at in range(0, len(begun), piece_bytes):
                    connection.sendall(begun[at : at + piece_bytes])
            answer = everything(connection)

        status, said = problem(answer)
        assert (status, said["code"], said["retryable"]) == (431, "headers_too_large", False)
        assert b"connection: close" in answer.lower()

    @pytest.mark.parametrize(
        ("begun", "piece"),
        [
            (GET + b"X: ", b"x"),
            (GET + b"X:", b" "),
            (GET, b"x"),
            (GET, b"X: y\r\n"),
            (b"GET /livez?", b"x"),
            (b"GET ", b" "),
            (b"", b"\r\n"),
            (CHUNKED + b"1\r\nx\r\n0\r\n", b"X: y\r\n"),
            (CHUNKED + b"1\r\nx\r\n0\r\nX: ", b"x"),
            (CHUNKED + b"1;", b"x"),
        ],
        ids=[
            *("value", "space before a value", "name", "fields", "address"),
            *("space before the address", "empty lines", "trailers", "trailer", "extension"),
        ],
    )
    def test_what_has_no_end_is_cut_off(self, port: int, begun: bytes, piece: bytes) -> None:
        process = psutil.Process()
        with connected(port) as connection:
            connection.sendall(begun)
            time.sleep(0.1)  # what follows does not come with it
            before = process.memory_info().rss
            sent = _flood(connection, piece * (65536 // len(piece)))

        assert sent < FLOOD_BYTES
        assert process.memory_info().rss - before < 20 * 1024**2

    def test_trailers_are_no_fields_of_the_head(self) -> None:
        fields: list[bytes] = []

        async def tell(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                while (await receive()).get("more_body"):
                    pass
                fields.extend(name for name, _ in scope["headers"])
                await send({"type": "http.response.start", "status": 204, "headers": []})
                await send({"type": "http.response.body"})

        with served(tell) as port, connected(port) as connection:
            connection.sendall(CHUNKED + b"1\r\nx\r\n0\r\nAuthorization: mine\r\n\r\n")
            assert status_of_answer(connection) == 204

        assert fields == [b"host", b"transfer-encoding"]

    def test_a_large_head_is_a_request_like_others_again_and_again(self, port: int) -> None:
        large = b"".join(b"X%d: %s\r\n" % (n, b"x" * 1000) for n in range(60))
        many = b"".join(b"X%d: y\r\n" % n for n in range(protocol.FIELDS - 1))
        with connected(port) as connection:
            for fields in [large, many, b"X: " + b"x" * 60 * 1024 + b"\r\n"] * 4:
                connection.sendall(GET + fields + b"\r\n")
                assert status_of_answer(connection) == 200

    def test_a_body_is_no_part_of_a_head(self, port: int) -> None:
        body = b"%x\r\n%s\r\n" % (len(PDF), PDF)
        body += b"".join(b"5000\r\n%s\r\n" % (b"\n" * 0x5000) for _ in range(20))
        head_bytes = head("POST", "/v1/jobs", "Transfer-Encoding: chunked")
        with connected(port) as connection:
            connection.sendall(head_bytes + body + b"0\r\nX: y\r\n\r\n" + GET + b"\r\n")
            with http.client.HTTPResponse(connection) as answer:
                answer.begin()
                assert answer.status == 202

    def test_many_requests_at_once_are_cut_off(self, port: int) -> None:
        process = psutil.Process()
        before = process.memory_info().rss
        with connected(port) as connection:
            sent = _flood(connection, (GET + b"\r\n") * 10_000)

        assert sent < FLOOD_BYTES
        assert process.memory_info().rss - before < 20 * 1024**2

    def test_some_requests_at_once_are_answered_in_order(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall((GET + b"\r\n") * protocol.WAITING)
            connection.sendall(GET + b"Connection: close\r\n\r\n")
            assert everything(connection).count(b"HTTP/1.1 200") == protocol.WAITING + 1

    def test_an_answer_that_is_under_way_is_not_mixed_with_another(self) -> None:
        async def go_on(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"first", "more_body": True})
                while (await receive())["type"] != "http.disconnect":
                    pass

        with served(go_on) as port, connected(port) as connection:
            connection.sendall(CHUNKED + b"1\r\nx\r\n0\r\n")
            begun = connection.recv(65536)
            _flood(connection, b"X: y\r\n" * 1000)
            answer = begun + everything(connection)

        assert answer.count(b"HTTP/1.1") == 1


def _flood(connection: socket.socket, piece: bytes) -> int:
    """Send until the other side closes, or FLOOD_BYTES; how many were sent."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < FLOOD_BYTES:
            connection.sendall(piece)
            sent += len(piece)
    return sent


class TestNonsense:
    @pytest.mark.parametrize(
        "sent",
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"GET\r\n\r\n",
            "GET /é HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
            b"GET / HTTP/1.1\r\nHost : a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        ],
        ids=["TLS", "no version", "not ASCII", "two lengths", "length and chunks", "NUL"],
    )
    def test_what_is_no_http_is_answered_with_a_problem(self, port: int, sent: bytes) -> None:
        with connected(port) as connection:
            connection.sendall(sent)
            status, said = problem(everything(connection))

        assert (status, said["code"], said["status"]) == (400, "malformed_request", 400)
        assert said["request_id"]

    def test_a_websocket_is_a_request_like_others(self, port: int) -> None:
        with connected(port) as connection:
            connection.sendall(
                b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")


class TestAnUnhandledException:
    @pytest.fixture
    def crashing(self) -> FastAPI:
        made = create_app()

        @made.get("/crash")
        def crash() -> None:
            raise RuntimeError("select secret from bucket at /home/octavo")

        return made

    def test_it_is_a_problem_with_the_request_id_and_nothing_else(self, crashing: FastAPI) -> None:
        with TestClient(crashing) as client:
            answer = client.get("/crash", headers={"X-Request-Id": "mine-1"})

        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.headers["X-Request-Id"] == answer.json()["request_id"] == "mine-1"
        assert answer.headers["Cache-Control"] == "no-store"
        for word in ("secret", "bucket", "RuntimeError", "Traceback", "octavo/"):
            assert word not in answer.text

    def test_it_is_in_the_log_once_with_the_id(
        self, crashing: FastAPI, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with TestClient(crashing) as client:
            client.get("/crash", headers={"X-Request-Id": "mine-2"})

        log = capsys.readouterr().out
        assert log.count("RuntimeError: select secret") == 1
        assert "mine-2" in log
        assert "status=500" in log


def test_what_is_remembered_of_guesses_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "REMEMBERED", 100)
    failed = logins.FailedLogins(5)

    def guess(number: int) -> None:
        secret, name = "A" * 43, f"{number:08d}"
        key = f"octavo_live_{name}_{secret}{keys._checksum(name, secret)}"  # noqa: SLF001
        address = f"10.0.{number // 256}.{number % 256}"
        with contextlib.suppress(Unauthenticated), failed.attempt(address, key):
            raise Unauthenticated
        with failed.attempt(None, f"good {number}"):
            pass

    def guess_many(first: int) -> None:
        for number in range(first, first + 500):
            guess(number)

    threads = [threading.Thread(target=guess_many, args=(first,)) for first in (0, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for kept in (failed._addresses._buckets, failed._key_ids._buckets, failed._good):  # noqa: SLF001
        assert len(kept) == 100


def test_an_address_may_try_again_after_a_while() -> None:
    now = [0.0]
    failed = logins.FailedLogins(6, clock=lambda: now[0])

    def fail() -> None:
        with (
            contextlib.suppress(Unauthenticated),
            failed.attempt("2001:db8:1:2::1", "nonsense"),
        ):
            raise Unauthenticated

    for _ in range(6):
        fail()
    with pytest.raises(TooManyFailedLogins) as refused:
        fail()
    assert refused.value.retry_after_seconds == 10
    with pytest.raises(TooManyFailedLogins), failed.attempt("2001:db8:1:2:ffff::9", "other"):
        raise Unauthenticated  # the same customer's
    with pytest.raises(Unauthenticated), failed.attempt("2001:db8:1:3::1", "another"):
        raise Unauthenticated

    now[0] += 10
    fail()
    with pytest.raises(TooManyFailedLogins):
        fail()


def test_of_those_who_are_to_wait_few_are_looked_at_side_by_side() -> None:
    failed = logins.FailedLogins(1, clock=lambda: 0.0)
    with failed.attempt("192.0.2.1", "right"):
        pass
    with pytest.raises(Unauthenticated), failed.attempt("192.0.2.1", "wrong"):
        raise Unauthenticated

    with failed.attempt("192.0.2.1", "new"), failed.attempt("192.0.2.1", "another"):
        with pytest.raises(TooManyFailedLogins) as refused, failed.attempt("192.0.2.1", "third"):
            pytest.fail("looked at")
        with failed.attempt("192.0.2.1", "right"), failed.attempt("192.0.2.2", "elsewhere"):
            pass

    assert refused.value.retry_after_seconds == 1
    with failed.attempt("192.0.2.1", "third"):
        pass
