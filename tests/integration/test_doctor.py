"""The doctor, with each part broken in turn: the right line turns red and carries a mend."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest
import redis
from pydantic import SecretStr
from sqlalchemy import text

from deploy.doctor import broker, database, gateway, machine, platform, secrets, store
from deploy.doctor.finding import Finding, Level
from shared import s3, workers
from shared.config import Settings, settings
from shared.db import transaction
from tests.factory import claimed, make_prepared
from worker.pipeline import layers
from worker.pipeline.layers import Layer

NOWHERE = 9  # a port that nobody listens on


def sick(found: Iterable[Finding], level: Level = Level.FAILURE) -> dict[str, str]:
    """The parts that are not well, with what was said; each has its mend."""
    bad = [one for one in found if one.level is level]
    assert all(one.mend for one in bad)
    return {one.part: one.said for one in bad}


def parts(found: Iterable[Finding]) -> set[str]:
    found = list(found)
    assert {one.level for one in found} == {Level.WELL}, found
    return {one.part for one in found}


def changed(**values: object) -> Settings:
    return settings().model_copy(update=values)


def with_password(url: SecretStr, password: str) -> SecretStr:
    old = urlsplit(url.get_secret_value()).password
    assert old
    return SecretStr(url.get_secret_value().replace(old, password))


def with_port(url: SecretStr, port: int) -> SecretStr:
    old = urlsplit(url.get_secret_value()).port
    return SecretStr(url.get_secret_value().replace(f":{old}/", f":{port}/"))


@contextmanager
def sql(change: str, undo: str) -> Iterator[None]:
    with transaction() as session:
        session.execute(text(change))
    try:
        yield
    finally:
        with transaction() as session:
            session.execute(text(undo))


@pytest.fixture
def valkey() -> Iterator[redis.Redis]:
    with redis.Redis.from_url(settings().broker_url.get_secret_value()) as client:
        client.flushall()
        yield client
        client.flushall()
        client.config_set("maxmemory", 0)
        client.config_set("maxmemory-policy", "noeviction")


def a_process(kind: str, queues: list[str], *, slots: int = 4) -> None:
    with transaction() as session:
        workers.beat(
            session,
            f"a {kind}",
            kind=kind,
            queues=queues,
            slots=slots,
            busy=0,
            draining=False,
            version="1",
            device={},
        )


def all_processes() -> None:
    a_process("dispatcher", [], slots=0)
    a_process("sweeper", [], slots=0)
    a_process("cpu", ["prepare", "assemble"])
    a_process("engine", ["recognise.fake", "recognise.paddle"])


class TestDatabase:
    def test_one_that_is_well(self) -> None:
        assert {"postgres", "schema", "connections"} <= parts(database.check(settings()))

    def test_one_that_is_stopped(self) -> None:
        stopped = changed(database_url=with_port(settings().database_url, NOWHERE))

        assert sick(database.check(stopped)).keys() == {"postgres"}

    def test_a_wrong_password(self) -> None:
        wrong = changed(database_url=with_password(settings().database_url, "guessed"))

        said = sick(database.check(wrong))["postgres"]
        assert "password authentication failed" in said
        assert "guessed" not in said

    def test_a_schema_that_is_behind(self) -> None:
        older = "UPDATE alembic_version SET version_num = '0' || version_num"
        with sql(older, "UPDATE alembic_version SET version_num = substr(version_num, 2)"):
            found = list(database.check(settings()))

        assert sick(found).keys() == {"schema"}
        assert any("octavo migrate" in one.mend for one in found)

    def test_few_connections(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "SPARE_CONNECTIONS", 10_000)

        assert sick(database.check(settings()), Level.WARNING).keys() == {"connections"}

    def test_commits_that_may_be_lost(self) -> None:
        user = urlsplit(settings().database_url.get_secret_value()).username
        off = f"ALTER ROLE {user} SET synchronous_commit = off"
        with sql(off, f"ALTER ROLE {user} RESET synchronous_commit"):
            assert sick(database.check(settings())).keys() == {"durability"}


class TestBroker:
    def test_one_that_is_well(self, valkey: redis.Redis) -> None:
        found = parts(broker.check(settings()))

        assert found == {"broker", "broker policy", "broker memory"}

    def test_one_that_is_stopped(self) -> None:
        stopped = changed(broker_url=with_port(settings().broker_url, NOWHERE))

        assert sick(broker.check(stopped)).keys() == {"broker"}

    def test_a_wrong_password(self) -> None:
        wrong = changed(broker_url=with_password(settings().broker_url, "guessed"))

        found = list(broker.check(wrong))
        assert "password" in sick(found)["broker"]
        assert "guessed" not in found[0].said

    def test_no_address(self) -> None:
        assert sick(broker.check(changed(broker_url=SecretStr("")))).keys() == {"broker"}

    def test_a_policy_that_forgets_messages(self, valkey: redis.Redis) -> None:
        valkey.config_set("maxmemory-policy", "allkeys-lru")

        assert sick(broker.check(settings())).keys() == {"broker policy"}

    def test_one_that_is_full(self, valkey: redis.Redis) -> None:
        valkey.config_set("maxmemory", 1000)

        assert sick(broker.check(settings())).keys() == {"broker memory"}


class TestStore:
    def test_one_that_is_well_is_left_as_it_was(self) -> None:
        found = parts(store.check(settings()))

        assert {
            "store",
            "store objects",
            "store multipart",
            "store conditions",
            "store pages",
        } <= found

    def test_one_that_is_stopped(self) -> None:
        stopped = changed(store_url=f"http://127.0.0.1:{NOWHERE}")

        assert sick(store.check(stopped)).keys() == {"store"}

    def test_a_bucket_that_is_missing(self) -> None:
        [found] = store.check(changed(store_bucket="elsewhere"))

        assert found.level is Level.FAILURE
        assert "make the bucket" in found.mend

    def test_wrong_keys(self) -> None:
        [found] = store.check(changed(store_secret_key=SecretStr("guessed")))

        assert found.level is Level.FAILURE
        assert "OCTAVO_STORE_SECRET_KEY" in found.mend

    def test_a_store_that_only_refuses_pages_is_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, nowhere = s3.objects, {"url": f"http://127.0.0.1:{NOWHERE}"}
        monkeypatch.setattr(s3, "objects", lambda **told: real(**told | nowhere))
        assert sick(store.check(settings())).keys() == {"store pages"}

    @pytest.mark.parametrize("probe", store._PROBES)  # noqa: SLF001
    def test_one_that_does_not_keep_to_s3(
        self, probe: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(store._PROBES, probe, lambda *_: "it lies")  # noqa: SLF001

        assert sick(store.check(settings())) == {probe: "it lies"}


class TestPlatform:
    def test_one_that_is_well(self, valkey: redis.Redis) -> None:
        all_processes()

        assert parts(platform.check(settings())) == set(platform.PARTS)

    @pytest.mark.parametrize("kind", ["dispatcher", "sweeper"])
    def test_one_that_does_not_go_round(self, kind: str) -> None:
        all_processes()
        with transaction() as session:
            late = "UPDATE workers SET last_seen_at = now() - interval '30 s' WHERE kind = :kind"
            session.execute(text(late), {"kind": kind})

        assert sick(platform.check(settings())).keys() == {kind}

    def test_no_worker(self) -> None:
        a_process("dispatcher", [], slots=0)
        a_process("sweeper", [], slots=0)
        a_process("cpu", ["prepare", "assemble"])

        found = list(platform.check(settings()))
        assert "recognise" in sick(found)["workers"]
        assert any("octavo worker engine --engine paddle" in one.mend for one in found)

    def test_two_versions_side_by_side(self) -> None:
        all_processes()
        with transaction() as session:
            session.execute(text("UPDATE workers SET version = '2' WHERE kind = 'cpu'"))

        assert sick(platform.check(settings()), Level.WARNING) == {"versions": "side by side: 1, 2"}

    @pytest.mark.parametrize(
        ("part", "change"),
        [
            ("due work", "UPDATE work SET due_at = now() - interval '1 hour'"),
            ("sent work", "UPDATE work SET sent_at = now() - interval '1 hour'"),
            ("leases", "UPDATE work SET lease_until = now() - interval '1 hour'"),
        ],
    )
    def test_work_that_nobody_moves(self, part: str, change: str) -> None:
        all_processes()
        with transaction() as session:
            _, [unit] = make_prepared(session, 1)
            if part == "leases":
                claimed(session, unit)
            session.execute(text(f"{change} WHERE kind = 'recognise'"))

        assert sick(platform.check(settings())).keys() == {part}

    def test_a_backlog_of_busy_workers_is_no_illness(self) -> None:
        all_processes()
        with transaction() as session:
            make_prepared(session, 20)
            session.execute(text("UPDATE work SET due_at = now() - interval '1 hour'"))
            busy = "UPDATE work SET sent_at = now() WHERE id IN (SELECT id FROM work "
            session.execute(text(busy + "WHERE kind = 'recognise' LIMIT 8)"))

        assert sick(platform.check(settings())) == {}

    def test_messages_that_nobody_takes(self, valkey: redis.Redis) -> None:
        all_processes()
        valkey.rpush("octavo:prepare", *["message"] * 100)

        assert sick(platform.check(settings())).keys() == {"lists"}

    def test_without_a_database_nothing_is_said_of_it(self) -> None:
        stopped = changed(database_url=with_port(settings().database_url, NOWHERE))

        assert {one.level for one in platform.check(stopped)} == {Level.UNKNOWN}


class TestMachine:
    def test_a_machine_that_is_well(self) -> None:
        assert parts(machine.check_clock(settings())) == {"clock"}

    def test_a_clock_that_is_off(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(machine, "CLOCK_SECONDS", -1)

        assert sick(machine.check_clock(settings()), Level.WARNING).keys() == {"clock"}

    @pytest.mark.parametrize(
        ("limit", "value", "level"),
        [
            ("LEAST_FREE_BYTES", 2**80, Level.FAILURE),
            ("LEAST_FREE_SHARE", 2.0, Level.WARNING),
        ],
    )
    def test_a_disk_that_is_full(
        self, limit: str, value: float, level: Level, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, limit, value)

        assert sick(machine.check_disk([]), level).keys() == {"disk"}

    def test_engines_read_their_golden_page_here(self) -> None:
        found = parts(machine.check_engines(changed(engines=("fake",))))

        assert found == {"engine fake"}

    def test_an_engine_that_does_not_start(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OCTAVO_FAKE_FAULTS", "start")

        said = sick(machine.check_engines(changed(engines=("fake",))), Level.WARNING)
        assert "the device is not there" in said["engine fake"]


class TestSecrets:
    def test_secrets_that_are_secret(self) -> None:
        assert parts(secrets.check(settings())) == {"secrets"}

    @pytest.mark.parametrize(
        "weaken",
        [
            lambda: {"secret_key": SecretStr("0" * 32)},
            lambda: {"secret_key": SecretStr("change-me-change-me-change-me-please")},
            lambda: {"store_secret_key": SecretStr("minioadmin")},
            lambda: {"database_url": with_password(settings().database_url, "postgres")},
            lambda: {"broker_url": SecretStr("redis://127.0.0.1:6379/0")},
        ],
        ids=["one character", "an example", "a default", "a name", "none"],
    )
    def test_secrets_that_are_guessed(self, weaken: Callable[[], dict[str, object]]) -> None:
        [said] = sick(secrets.check(changed(**weaken()))).values()

        assert said.startswith("easily guessed: ")
        assert "minioadmin" not in said


def test_a_gateway_that_is_stopped() -> None:
    stopped = changed(public_url=f"http://127.0.0.1:{NOWHERE}")

    assert sick(gateway.check(stopped)).keys() == {"gateway"}


def test_a_wall_that_the_host_does_not_allow_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stands = {
        "seccomp": Layer(active=True, detail=""),
        "landlock": Layer(active=False, detail="no such call"),
    }
    monkeypatch.setattr(layers, "active", lambda: stands)

    [found] = machine.check_sandbox()

    assert (found.part, found.level) == ("sandbox", Level.WARNING)
    assert found.said == "without landlock (no such call); seccomp"
    assert found.mend


def test_a_host_where_no_document_can_be_opened_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> dict[str, Layer]:
        raise OSError("no more processes")

    monkeypatch.setattr(layers, "active", none)

    [found] = machine.check_sandbox()

    assert found.level is Level.FAILURE
    assert "no more processes" in found.said
