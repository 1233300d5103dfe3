"""The embedded servers, started, killed and started again, apart from those of the other tests."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
import redis

from benchmarks import store
from deploy.embedded import ports, seaweedfs
from deploy.embedded.errors import ServiceError
from deploy.embedded.services import Services
from deploy.embedded.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with Services(tmp_path_factory.mktemp("embedded")) as started:
        yield started


@contextlib.contextmanager
def cursor(services: Services) -> Iterator[psycopg2.extensions.cursor]:
    url = services.environment()["OCTAVO_DATABASE_URL"].replace("+psycopg2", "")
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as opened:
            yield opened


@contextlib.contextmanager
def store_of(services: Services) -> Iterator[tuple[S3Client, str]]:
    environment = services.environment()
    client = store.client(environment)
    with contextlib.closing(client):
        yield client, environment["OCTAVO_STORE_BUCKET"]


def put(services: Services, key: str, body: bytes) -> None:
    with store_of(services) as (client, bucket):
        client.put_object(Bucket=bucket, Key=key, Body=body)


def get(services: Services, key: str) -> bytes:
    with store_of(services) as (client, bucket):
        return client.get_object(Bucket=bucket, Key=key)["Body"].read()


def test_what_was_stored_survives_a_kill_of_every_server(services: Services) -> None:
    environment = services.environment()
    with cursor(services) as rows, redis.from_url(environment["OCTAVO_BROKER_URL"]) as broker:
        rows.execute("CREATE TABLE leaves AS SELECT 8 AS number")
        broker.set("leaves", 8)
        put(services, "leaves", b"8")
        time.sleep(1.1)  # the broker writes to disk every second

    for pid in services.pids().values():
        os.kill(pid, signal.SIGKILL)
    services.start()

    assert services.environment() == environment
    with cursor(services) as rows, redis.from_url(environment["OCTAVO_BROKER_URL"]) as broker:
        rows.execute("SELECT number FROM leaves")
        assert rows.fetchone() == (8,)
        assert broker.get("leaves") == b"8"
    assert get(services, "leaves") == b"8"


def test_one_that_died_is_started_again_and_the_others_are_left_alone(services: Services) -> None:
    before = services.pids()
    os.kill(before["postgres"], signal.SIGKILL)
    while not services.dead():
        time.sleep(0.01)

    assert services.restart_dead() == ["postgres"]

    after = services.pids()
    assert after.pop("postgres") != before.pop("postgres")
    assert after == before
    with cursor(services) as rows:
        rows.execute("SELECT current_setting('max_connections'), current_setting('fsync')")
        assert rows.fetchone() == ("200", "on")


def test_whoever_comes_later_finds_the_servers_that_run(services: Services) -> None:
    later = Services(services.directory)
    later.start()

    assert later.pids() == services.pids()
    assert later.environment() == services.environment()


def test_the_store_is_empty_after_a_probe(services: Services) -> None:
    services.start()

    with store_of(services) as (client, bucket):
        assert client.list_objects_v2(Bucket=bucket, Prefix="probe")["KeyCount"] == 0


def test_only_their_owner_reads_the_passwords(services: Services) -> None:
    assert (services.directory / "services.json").stat().st_mode & 0o077 == 0


def test_a_port_that_is_taken_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    with ports.chosen(3) as found:
        mine, heard, free = found
    monkeypatch.setattr(ports, "PORTS", found)

    with socket.socket() as listener:
        listener.bind((ports.HOST, heard))
        listener.listen()

        with ports.chosen(1, taken=[mine]) as chosen:
            assert chosen == [free]


def test_a_port_that_another_process_has_chosen_is_not_chosen_before_its_server_listens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ports.chosen(2) as found:
        pass
    theirs, free = found
    monkeypatch.setattr(ports, "PORTS", found)
    claim = f"from deploy.embedded import ports; print(ports.claim({theirs}), flush=True); input()"

    with subprocess.Popen(
        [sys.executable, "-c", claim], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"

        assert ports.is_free(theirs)
        with ports.chosen(1) as chosen:
            assert chosen == [free]
        other.kill()

    with ports.chosen(2) as chosen:
        assert set(chosen) == {theirs, free}


def test_a_port_is_chosen_once_until_it_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    with ports.chosen(1) as found:
        monkeypatch.setattr(ports, "PORTS", range(found[0], found[0] + 1))
        with pytest.raises(ServiceError):
            ports.choose(1)

    with ports.chosen(1) as again:
        assert again == found


def test_ports_of_servers_that_stopped_are_free_for_others(tmp_path: Path) -> None:
    services = Services(tmp_path)
    services.start()
    theirs = [port for each in services._settings.ports.values() for port in each]  # noqa: SLF001
    claim = f"from deploy.embedded import ports; print(all(map(ports.claim, {theirs})))"

    def can_others_claim_them() -> bool:
        done = subprocess.run(
            [sys.executable, "-c", claim], capture_output=True, text=True, check=True
        )
        return bool(done.stdout == "True\n")

    assert not can_others_claim_them()
    services.stop()
    assert can_others_claim_them()


@pytest.mark.parametrize("name", ["postgres", "valkey", "seaweedfs"])
def test_a_port_that_somebody_takes_after_it_was_chosen_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    choose = Services._choose_ports  # noqa: SLF001 - what happens between its end and the launch
    taken: list[socket.socket] = []

    def choose_and_lose_one(services: Services) -> None:
        choose(services)
        if not taken:
            port = services._settings.ports[name][0]  # noqa: SLF001
            taken.append(socket.socket())
            taken[0].bind((ports.HOST, port))

    monkeypatch.setattr(Services, "_choose_ports", choose_and_lose_one)
    with Services(tmp_path) as services:
        assert len(services.pids()) == 3
        assert services.dead() == []
    taken[0].close()


def test_a_port_whose_socket_another_user_left_is_chosen_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = tmp_path / "tmp"
    sockets.mkdir()
    monkeypatch.setattr(seaweedfs, "SOCKETS", sockets)
    owner = os.geteuid()
    store = seaweedfs.SeaweedFS(tmp_path, Settings.load(tmp_path / "services.json"))
    store.choose_ports()
    before = list(store.ports)
    (sockets / f"seaweedfs-s3-{before[0]}.sock").touch()
    (sockets / "seaweedfs-of-another-kind.sock").touch()

    store.choose_ports()
    assert store.ports == before  # what is ours we may remove

    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    store.choose_ports()
    assert before[0] not in store.ports
    assert len(set(store.ports)) == len(before)
    store.release_ports()


def test_objects_of_a_directory_that_an_earlier_version_made_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(seaweedfs.SeaweedFS, "_entry_store", lambda _: {})
        with Services(tmp_path) as services:
            put(services, "leaves", b"8")

    with Services(tmp_path) as services:
        assert get(services, "leaves") == b"8"
    assert not (tmp_path / "seaweedfs" / "filerldb3").exists()


def test_a_new_directory_has_one_database_of_entries_for_each_bucket(services: Services) -> None:
    put(services, "leaves/8", b"8")

    store = services.directory / "seaweedfs"
    assert (store / "filerldb3" / seaweedfs.BUCKET).is_dir()
    assert not any(store.glob("filerldb2/*"))
