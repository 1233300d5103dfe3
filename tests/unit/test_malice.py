"""What a child that a document has taken over can do: nothing; and which layer sees to it."""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared.errors import DocumentInvalid, InternalError
from shared.media import MediaType
from tests import documents, malice
from tests.unit.test_sandbox import LIMITS, as_root
from worker.pipeline import layers, nursery, sandbox
from worker.pipeline.confinement import FONTS, LAYERS, Layer
from worker.pipeline.nursery import Nursery, Zygote
from worker.pipeline.sandbox import Child, ChildLied, ChildLost

SOMEBODY = 54_321
"""A uid that nobody else has."""

NEEDED = "no_new_privs"
NEEDS_IT = {"landlock", "seccomp"}
"""Without it a process that has no capabilities gets neither of them."""

# Each attack, and the layers that stop it with all others switched off.

OF_ROOT: dict[str, set[str]] = {
    "read a file": {"landlock", "seccomp"},
    "read the worker's environment": {"uid", "capabilities", "landlock", "seccomp"},
    "list a folder": {"landlock", "seccomp"},
    "look at a file": {"seccomp"},
    "write a file": {"rlimits", "landlock", "seccomp"},
    "make a memory file": {"rlimits", "seccomp"},
    "connect to loopback": {"namespaces", "landlock", "seccomp"},
    "send a datagram": {"namespaces", "seccomp"},
    "connect to a socket by path": {"seccomp"},
    "connect to an abstract socket": {"namespaces", "landlock", "seccomp"},
    "fork": {"seccomp"},  # and by rlimits where it is not root
    "start a thread": {"seccomp"},  # likewise
    "execute a program": {"landlock", "seccomp"},
    "signal the worker": {"namespaces", "uid", "landlock", "seccomp"},
    "trace the worker": {"namespaces", "uid", "capabilities", "landlock", "seccomp"},
    "trace its zygote": {"namespaces", "uid", "capabilities", "landlock", "seccomp"},
    "leave its user namespace": {"seccomp"},
    "make code": {"seccomp"},
    "set up io_uring": {"seccomp"},
    "have a keyring": {"seccomp"},
    "handle its page faults": {"seccomp"},
    "load a BPF map": {"uid", "capabilities", "seccomp"},
    "take 4 GiB": {"rlimits"},
}

OF_SOMEBODY = OF_ROOT | {
    "read the worker's environment": {"namespaces", "landlock", "seccomp"},
    "write a file": {"namespaces", "rlimits", "landlock", "seccomp"},
    "fork": {"rlimits", "seccomp"},
    "start a thread": {"rlimits", "seccomp"},
    "signal the worker": {"namespaces", "landlock", "seccomp"},
    "trace the worker": {"namespaces", "landlock", "seccomp"},
    "trace its zygote": {"namespaces", "landlock", "seccomp"},
    "leave its user namespace": {"namespaces", "seccomp"},
    "set up io_uring": {"rlimits", "seccomp"},
    "load a BPF map": {"namespaces", "rlimits", "seccomp"},
}

DEPENDS_ON_THE_HOST = {
    "trace the worker",  # Yama
    "trace its zygote",
    "leave its user namespace",  # AppArmor, a sysctl
    "set up io_uring",  # a sysctl, likewise the next two
    "handle its page faults",
    "load a BPF map",
}
"""What some hosts refuse to everybody; the others must succeed where no layer is on."""


@pytest.fixture(scope="module")
def facts() -> Iterator[dict[str, Any]]:
    """Things to be attacked, which anybody may who gets at them."""
    folder = tempfile.mkdtemp()
    Path(folder).chmod(0o777)
    abstract = f"octavo-{os.getpid()}"
    by_path = f"{folder}/socket"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        _listening("\0" + abstract),
        _listening(by_path),
    ):
        Path(by_path).chmod(0o777)
        port = tcp.getsockname()[1]
        yield {"folder": folder, "abstract": abstract, "socket": by_path, "port": port}
    shutil.rmtree(folder)


@contextmanager
def _listening(address: str) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(address)
        server.listen(64)
        yield


@contextmanager
def zygote_without(*off: str, uid: int = 0) -> Iterator[Zygote]:
    zygote = Zygote(malice.program(off=off, uid=uid))
    try:
        yield zygote
    finally:
        zygote.close()


@contextmanager
def taken_over(
    zygote: Zygote,
    attacks: list[str],
    facts: dict[str, Any],
    *,
    media_type: MediaType = MediaType.PDF,
    page_seconds: float = 10,
) -> Iterator[Child]:
    """A child that will carry out these attacks, one a page."""
    limits = replace(LIMITS, page_seconds=page_seconds)
    with (
        documents.file_of(malice.script(attacks, **facts)) as file,
        open(f"/proc/self/fd/{file.fileno()}", "rb") as document,  # noqa: PTH123
    ):
        child = sandbox.start_child(
            document.fileno(), media_type, limits, fork=lambda *order: (zygote, zygote.fork(*order))
        )
    with closing(child):
        child.open(None)
        yield child


def outcome(child: Child, page: int) -> str:
    try:
        child.render(page)
    except DocumentInvalid as error:
        return error.detail
    except ChildLost as lost:
        return f"lost: {lost}"
    return malice.DONE


def outcomes(zygote: Zygote, attacks: list[str], facts: dict[str, Any]) -> dict[str, str]:
    """What became of each attack, each by a child of its own."""
    told = {}
    for attack in attacks:
        with taken_over(zygote, [attack], facts) as child:
            told[attack] = outcome(child, 0)
    return told


def stopped(told: dict[str, str]) -> set[str]:
    return {attack for attack, said in told.items() if said.startswith("refused")}


@contextmanager
def victim(uid: int) -> Iterator[int]:
    """The pid of a process that is the worker's equal."""
    user = uid or None
    environment = {"OCTAVO_DATABASE_URL": "postgresql://octavo:secret@database"}
    with subprocess.Popen(["/bin/sleep", "600"], env=environment, user=user, group=user) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def pid_of(zygote: Zygote) -> int:
    about = Path(f"/proc/self/fdinfo/{zygote._process}").read_text()  # noqa: SLF001
    [pid] = re.findall(r"^Pid:\s+(\d+)", about, re.MULTILINE)
    return int(pid)


WORKERS = {"root": (0, OF_ROOT), "an ordinary user": (SOMEBODY, OF_SOMEBODY)}


def told_with(layers: set[str], worker: str, facts: dict[str, Any]) -> dict[str, str]:
    """What became of each attack by the children of this worker, with these layers on."""
    uid, table = WORKERS[worker]
    with zygote_without(*set(LAYERS) - layers, uid=uid) as zygote, victim(uid) as pid:
        return outcomes(zygote, list(table), facts | {"victim": pid, "zygote": pid_of(zygote)})


@pytest.fixture(scope="module")
def refused_to_all(facts: dict[str, Any]) -> dict[str, set[str]]:
    """The attacks that this host stops without any of our layers."""
    return {worker: stopped(told_with(set(), worker, facts)) for worker in WORKERS}


@as_root
@pytest.mark.parametrize("worker", WORKERS)
def test_without_layers_attacks_succeed(worker: str, refused_to_all: dict[str, set[str]]) -> None:
    assert refused_to_all[worker] <= DEPENDS_ON_THE_HOST


@as_root
@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_each_layer_alone_stops_what_the_table_says(
    layer: str, worker: str, facts: dict[str, Any], refused_to_all: dict[str, set[str]]
) -> None:
    _, table = WORKERS[worker]

    told = told_with({layer, NEEDED}, worker, facts)

    expected = {attack for attack, layers in table.items() if layer in layers}
    assert stopped(told) - refused_to_all[worker] == expected - refused_to_all[worker], told


@as_root
@pytest.mark.parametrize("worker", WORKERS)
@pytest.mark.parametrize("off", [None, *LAYERS])
def test_with_one_layer_off_every_attack_is_stopped_that_another_stops(
    off: str | None, worker: str, facts: dict[str, Any]
) -> None:
    _, table = WORKERS[worker]

    told = told_with(set(LAYERS) - {off}, worker, facts)

    gone = {off} | (NEEDS_IT if off == NEEDED else set())
    assert stopped(told) >= {attack for attack, layers in table.items() if layers - gone}, told


@as_root
def test_two_layers_together_stop_new_processes(facts: dict[str, Any]) -> None:
    with zygote_without(*set(LAYERS) - {"rlimits", "uid"}) as zygote:
        told = outcomes(zygote, ["fork", "start a thread"], facts)

    assert stopped(told) == {"fork", "start a thread"}


@pytest.fixture(scope="module")
def evil_zygote() -> Iterator[Zygote]:
    """With all layers that this host allows."""
    with zygote_without() as zygote:
        yield zygote


@pytest.mark.parametrize("off", [(), tuple(LAYERS)], ids=["all layers", "no layer"])
def test_the_pixels_have_their_size_for_good(off: tuple[str, ...], facts: dict[str, Any]) -> None:
    attacks = ["enlarge the pixels", "write past the pixels"]
    with zygote_without(*off) as zygote:
        told = outcomes(zygote, [*attacks, "touch what lies past the pixels"], facts)

    assert stopped(told) >= set(attacks)
    assert told["touch what lies past the pixels"].startswith("lost")


def test_a_child_may_read_fonts_where_landlock_says_which_they_are(
    evil_zygote: Zygote, facts: dict[str, Any]
) -> None:
    fonts = [font for folder in FONTS for font in folder.rglob("*.ttf")]
    if not fonts or not evil_zygote.layers["landlock"].active:
        pytest.skip("there are none, or nothing that could say so")
    attacks = ["read a font", "read a file", "list a folder", "write a file"]

    told = outcomes(evil_zygote, attacks, facts | {"font": str(fonts[0])})
    with zygote_without("landlock") as zygote:
        without = outcomes(zygote, attacks, facts | {"font": str(fonts[0])})

    assert stopped(told) == set(attacks) - {"read a font"}
    assert stopped(without) == set(attacks)


FORGETFUL = """
import sys
sys.path.insert(0, sys.argv[1])
from worker.pipeline import confinement, zygote

def refuse(*_):
    raise OSError("not today")

def take_orders(control, layers, take=zygote._take_orders):
    confinement.LAYERS["{layer}"] = ("", refuse)
    take(control, layers)

zygote._take_orders = take_orders
zygote.main(int(sys.argv[2]))
"""


@pytest.mark.parametrize("layer", sorted(set(LAYERS) - {"namespaces"}))
def test_a_child_that_does_not_get_a_layer_which_the_host_allows_opens_nothing(layer: str) -> None:
    zygote = Zygote(FORGETFUL.format(layer=layer))
    try:
        if not zygote.layers[layer].active:
            pytest.skip("the host does not allow it")
        with (
            pytest.raises(InternalError, match="not today"),
            taken_over(zygote, [], {}),
        ):
            pass
    finally:
        zygote.close()


def test_what_a_host_does_not_allow_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    program = malice.program(off=("landlock", "namespaces"))
    monkeypatch.setattr(nursery, "Zygote", partial(Zygote, program))
    monkeypatch.setattr(layers, "Zygote", partial(Zygote, program))

    told = layers.active()
    with capture_logs() as log, closing(_Nursery()) as ours:
        ours.start()

    assert set(told) == set(LAYERS)
    assert told["landlock"] == Layer(active=False, detail="switched off")
    assert told["rlimits"].active
    [event] = [entry for entry in log if entry["event"] == "sandbox_layers_missing"]
    assert event["namespaces"] == "switched off"


class _Nursery(Nursery):
    def close(self) -> None:
        self._living().close()


def test_no_limit_can_be_raised(evil_zygote: Zygote) -> None:
    assert stopped(outcomes(evil_zygote, ["raise a limit"], {})) == {"raise a limit"}


def test_all_system_calls_are_refused_but_the_listed(evil_zygote: Zygote) -> None:
    if not evil_zygote.layers["seccomp"].active:
        pytest.skip("the host allows no filter")
    attack = "make any other system call"

    assert outcomes(evil_zygote, [attack], {})[attack] == "let through: []"


def test_a_decoder_that_needs_threads_gets_threads_and_no_process(evil_zygote: Zygote) -> None:
    attacks = ["start a thread", "fork", "execute a program", "read a file"]
    with taken_over(evil_zygote, attacks, {}, media_type=MediaType.HEIC) as child:
        told = [outcome(child, page) for page in range(4)]

    assert told[0] == malice.DONE
    assert all(said.startswith("refused") for said in told[1:]), told


@pytest.mark.parametrize(
    ("off", "said"),
    [((), "memory or time"), (("rlimits",), r"more than 1\.4 s")],
    ids=["by the kernel", "by the parent's clock"],
)
def test_a_child_that_computes_for_ever_is_ended(off: tuple[str, ...], said: str) -> None:
    with (
        zygote_without(*off) as zygote,
        taken_over(zygote, ["compute for ever"], {}, page_seconds=1) as child,
        pytest.raises(ChildLost, match=said),
    ):
        child.connection.settimeout(1.4 if off else 30)
        child.render(0)


@pytest.mark.parametrize(
    "lie",
    [
        "flood with nonsense",
        "claim 2**40 pixels",
        "claim a negative size",
        "claim a size of 5,000 digits",
        "claim more than there is",
    ],
)
def test_a_lie_ends_the_child_that_tells_it(lie: str, evil_zygote: Zygote) -> None:
    with taken_over(evil_zygote, [lie], {}) as child, pytest.raises(ChildLied):
        child.render(0)


def test_a_flood_of_answers_costs_the_parent_nothing(evil_zygote: Zygote) -> None:
    with taken_over(evil_zygote, ["flood with answers"], {}) as child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(50):
            assert child.render(0).size == (300, 300)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    assert after - before < 8 * 1024  # KiB


@pytest.mark.parametrize("end", ["die", "crash"])
def test_a_child_that_ends_itself_is_lost(end: str, evil_zygote: Zygote) -> None:
    with taken_over(evil_zygote, [end], {}) as child, pytest.raises(ChildLost):
        child.render(0)
