"""What a campaign is made of: the schedule, the documents, the proxy, the journal, the outcome."""

import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from benchmarks.chaos import faults, outcome
from benchmarks.chaos.documents import DEADLY, HARMFUL, Fate, submissions
from benchmarks.chaos.faults import Fault, Kind
from benchmarks.chaos.injector import Injector
from benchmarks.chaos.invariants import Breach, Harm
from benchmarks.chaos.journal import Journal
from benchmarks.chaos.outcome import Outcome
from benchmarks.chaos.proxy import Mode, Proxy

SCHEDULE = {"lease_seconds": 4.0, "rest_seconds": 6.0}


def test_fifty_faults_are_of_every_kind() -> None:
    for seed in range(20):
        assert {fault.kind for fault in faults.schedule(seed, 50, **SCHEDULE)} == set(Kind)


def test_a_seed_gives_the_same_faults_and_documents_again() -> None:
    assert faults.schedule(3, 50, **SCHEDULE) == faults.schedule(3, 50, **SCHEDULE)
    assert faults.schedule(3, 50, **SCHEDULE) != faults.schedule(4, 50, **SCHEDULE)
    first, second = (list(submissions(3, 20)) for _ in range(2))
    assert first == second
    assert first[7].document() == second[7].document()


@pytest.mark.parametrize("seed", range(1, 21))
def test_the_last_faults_have_time_for_themselves(seed: int) -> None:
    planned = faults.schedule(seed, 50, **SCHEDULE)
    quiet = [fault for fault in planned if fault.is_quiet]
    others = planned[: -len(quiet)]

    assert len(quiet) >= 5
    assert planned[-len(quiet) :] == quiet
    assert quiet[0].at - max(each.at + each.seconds for each in others) > 5.99
    assert all(later.at - sooner.at > 5.99 for sooner, later in itertools.pairwise(quiet))


def test_a_fault_that_ends_late_puts_off_the_quiet_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing: Any = None
    injector = Injector(nothing, nothing, on_kill=nothing)
    struck: list[float] = []

    def inject(_: Injector, fault: Fault) -> bool:
        struck.append(time.monotonic())
        time.sleep(0 if fault.is_quiet else 0.5)
        return True

    monkeypatch.setattr(Injector, "_inject", inject)
    late = Fault(Kind.FREEZE_ENGINE, at=0, seconds=0.1, draw=0)
    injector.run([late, *faults.quiet_kills(2, begin=0.3, rest_seconds=0.3)])

    first, second, third = struck
    assert second - first >= 0.5 + 0.2
    assert third - second >= 0.25


def test_a_thousand_documents_have_pages_enough_and_every_fate() -> None:
    made = list(submissions(1, 1_000))

    assert sum(each.pages for each in made) >= 4_000
    assert {each.fate for each in made} == set(Fate)


def test_the_last_documents_kill_no_engine_and_are_the_same_otherwise() -> None:
    plain, spared = (list(submissions(18, 1_000, deadly=number)) for number in (None, 738))

    changed = [one.number for one, other in zip(plain, spared, strict=True) if one != other]
    assert changed
    assert all(set(plain[number - 1].faults) & set(DEADLY) for number in changed)
    assert not any(set(one.faults) & set(DEADLY) for one in spared[738:])


def test_the_documents_of_twenty_seeds_do_every_harm() -> None:
    made = [each for seed in range(1, 21) for each in submissions(seed, 1_000)]

    assert {fault for each in made for fault in each.faults} >= set(HARMFUL)


# The proxy


@contextmanager
def answering(body: bytes) -> Iterator[tuple[str, int]]:
    """A server that answers every request with `body`."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while connection.recv(65536):
                connection.sendall(answer)

    def accept(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        yield ("127.0.0.1", listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with answering(b"body of the answer") as address, Proxy(lambda: address) as opened:
        yield opened


def test_the_proxy_passes_what_it_is_given(proxy: Proxy) -> None:
    with httpx.Client() as client:
        assert [client.get(proxy.url).text for _ in range(3)] == ["body of the answer"] * 3


def test_the_proxy_refuses_also_on_a_connection_that_was_open(proxy: Proxy) -> None:
    with httpx.Client() as client:
        assert client.get(proxy.url).status_code == 200
        with proxy.misbehaving(Mode.ERRORS):
            assert client.get(proxy.url).status_code == 503
        assert client.get(proxy.url).status_code == 200


def is_there(proxy: Proxy) -> bool:
    """Whether it takes a connection."""
    where = urlsplit(proxy.url)
    with suppress(ConnectionError):
        socket.create_connection((str(where.hostname), int(where.port or 0)), 20).close()
        return True
    return False


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        (Mode.CUT, httpx.RemoteProtocolError),
        (Mode.SILENT, httpx.ReadTimeout),
        (Mode.GONE, httpx.ConnectError),
    ],
)
def test_the_proxy_misbehaves(mode: Mode, error: type[Exception], proxy: Proxy) -> None:
    patience = httpx.Timeout(20, read=0.5 if mode is Mode.SILENT else 20)
    with proxy.misbehaving(mode):
        while mode is Mode.GONE and is_there(proxy):  # it looks now and then
            time.sleep(0.02)
        with httpx.Client(timeout=patience) as client, pytest.raises(error):
            client.get(proxy.url)

    with httpx.Client(transport=httpx.HTTPTransport(retries=5)) as client:
        assert client.get(proxy.url).status_code == 200


def test_the_proxy_resets_connections(proxy: Proxy) -> None:
    # By a bare socket: a client of HTTP that was writing at that moment says that nothing came.
    where = urlsplit(proxy.url)
    with (
        proxy.misbehaving(Mode.RESET),
        pytest.raises(ConnectionResetError),
        socket.create_connection((str(where.hostname), int(where.port or 0)), 5) as connection,
    ):
        connection.recv(1)


def test_a_slow_proxy_takes_its_time(proxy: Proxy) -> None:
    with httpx.Client() as client, proxy.misbehaving(Mode.SLOW):
        began = time.monotonic()
        assert client.get(proxy.url).status_code == 200
        assert time.monotonic() - began > 0.5


# What is told


def test_the_journal_counts_over_all_logs_and_skips_broken_lines(tmp_path: Path) -> None:
    late = {"event": "late_write_refused", "job_id": "0" * 32, "page": 3, "kind": "recognise"}
    lines = [
        json.dumps({"event": "swept", "step": "rescue", "count": 4}),
        json.dumps(late | {"attempt": 2}),
        '{"event": "swe',
        "ready",
        json.dumps(
            {"event": "boom", "process": "sweeper", "exception": "Traceback\nValueError: x"}
        ),
    ]
    for name in ("a.log", "b.log"):
        (tmp_path / name).write_text("\n".join(lines))

    journal = Journal(tmp_path)

    assert journal.swept["rescue"] == 8
    assert [each.attempt for each in journal.late] == [2, 2]
    assert journal.crashes == {"sweeper: boom: ValueError: x": 2}


def an_outcome(**values: Any) -> Outcome:
    usual: dict[str, Any] = {
        "seed": 1,
        "jobs": 10,
        "pages": 40,
        "faults": {"flush valkey": 3},
        "missed": 0,
        "breaches": [],
        "statuses": {"succeeded": 10},
        "harmed_pages": {},
        "repeated_requests": 0,
        "given_up": 0,
        "twice": 0,
        "zombie_writes_refused": 2,
        "late_writes_refused": 3,
        "claims_lost": 0,
        "swept": {"rescue": 5},
        "crashes": {},
        "engine_deaths": 0,
        "unknown_objects": 0,
        "superseded_objects": 0,
        "deadlocks": 0,
        "latency_p50_s": 1.0,
        "latency_p99_s": 4.0,
        "latency_max_s": 5.0,
        "quiet_recoveries": [4.5, 5.0],
        "recovery_all_max_s": 6.0,
        "recoveries": [],
        "seconds": 60.0,
    }
    return Outcome(**(usual | values))


def test_an_outcome_tells_each_harm_apart() -> None:
    breaches = [
        Breach("one", Harm.LOST, 2, ("a",)),
        Breach("two", Harm.DOUBLED, 3, ()),
        Breach("three", Harm.STUCK, 4, ()),
    ]

    facts = an_outcome(breaches=breaches).facts()

    assert (facts["lost"], facts["duplicates"], facts["stuck"]) == (2, 3, 4)
    assert facts["recovery_max_s"] == 5.0


def test_an_outcome_that_was_kept_is_the_same_again() -> None:
    made = an_outcome(breaches=[Breach("one", Harm.LOST, 2, ("a",))])

    again = Outcome.of(json.loads(json.dumps(made.facts())))

    assert again == made
    assert outcome.line(again) == outcome.line(made)


def test_several_seeds_are_summed_and_the_worst_time_is_kept() -> None:
    both = [an_outcome(), an_outcome(seed=2, latency_p99_s=9.0, quiet_recoveries=[5.5])]

    facts = outcome.total(both)

    assert (facts["jobs"], facts["faults"], facts["zombie_writes_refused"]) == (20, 6, 4)
    assert (facts["latency_p99_s"], facts["recovery_max_s"]) == (9.0, 5.5)
