from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from deploy.backoff import LOOP_DEATHS, LOOP_SECONDS, Backoff, Restarts
from deploy.child import Child, Program
from deploy.supervisor import Failure, Supervisor

PATIENCE_SECONDS = 10

WORKS = "print('ready', flush=True); import time; time.sleep(60)"
ENDS_POLITELY = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('asked to end', time.monotonic(), flush=True)))
print('ready', flush=True)
time.sleep(60)
"""
IGNORES = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('ready', flush=True)
time.sleep(60)
"""


def child(name: str, code: str, logs: Path) -> Child:
    program = Program(name, (sys.executable, "-I", "-c", code))
    return Child(program, environment=dict(os.environ), logs=logs)


@contextlib.contextmanager
def supervised(
    *groups: Sequence[Child], tell: Callable[[str], None] = lambda _: None
) -> Iterator[Supervisor]:
    supervisor = Supervisor(groups, tell=tell)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.hurry()
        with contextlib.suppress(Failure):
            supervisor.wait()


def eventually(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has reaped does not."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_start_returns_when_every_process_is_ready(tmp_path: Path) -> None:
    slow = f"print('not yet', flush=True); import time; time.sleep(0.3); {WORKS}"

    with supervised([child("fast", WORKS, tmp_path), child("slow", slow, tmp_path)]) as supervisor:
        assert supervisor.pids().keys() == {"fast", "slow"}
        assert (tmp_path / "slow.log").read_text() == "not yet\nready\n"


def test_one_that_does_not_start_stops_all_and_says_why(tmp_path: Path) -> None:
    good = child("good", WORKS, tmp_path)
    bad = child("bad", "import sys; sys.exit('the port is taken')", tmp_path)
    supervisor = Supervisor([[good], [bad]])

    with pytest.raises(Failure, match=r"bad did not start: exit status 1(.|\n)*the port is taken"):
        supervisor.start()

    assert supervisor.pids() == {}


def test_one_that_dies_is_started_again(tmp_path: Path) -> None:
    told: list[str] = []
    with supervised([child("part", WORKS, tmp_path)], tell=told.append) as supervisor:
        first = supervisor.pids()["part"]

        os.kill(first, signal.SIGKILL)

        eventually(lambda: supervisor.pids().get("part", first) != first)
        assert told == ["part died (SIGKILL); starting it again in 0.2 s"]


def test_one_that_ends_in_order_is_started_again_and_that_is_no_death(tmp_path: Path) -> None:
    told: list[str] = []
    with supervised([child("part", ENDS_POLITELY, tmp_path)], tell=told.append) as supervisor:
        for _ in range(LOOP_DEATHS + 1):
            before = supervisor.pids()["part"]
            eventually(lambda: (tmp_path / "part.log").read_text().endswith("ready\n"))
            os.kill(before, signal.SIGTERM)
            eventually(lambda: supervisor.pids().get("part", before) != before)  # noqa: B023 - used at once

        assert set(told) == {"part ended; starting it again"}


def test_a_restart_returns_when_the_new_one_is_ready(tmp_path: Path) -> None:
    parts = [child(name, ENDS_POLITELY, tmp_path) for name in ("one", "two")]
    with supervised(parts) as supervisor:
        before = supervisor.pids()

        supervisor.restart("one")

        after = supervisor.pids()
        assert parts[0].is_ready
        assert after["one"] != before["one"]
        assert after["two"] == before["two"]


def test_a_crash_loop_stops_all_and_says_how_the_log_ends(tmp_path: Path) -> None:
    dies = (
        "print('ready', flush=True); import time; time.sleep(0.2); raise SystemExit('out of paper')"
    )
    groups = [[child("good", WORKS, tmp_path)], [child("dies", dies, tmp_path)]]

    with supervised(*groups) as supervisor:
        with pytest.raises(Failure, match=r"dies died 5 times within 30 s(.|\n)*out of paper"):
            supervisor.wait()
        assert supervisor.pids() == {}


def test_groups_are_stopped_one_after_the_other(tmp_path: Path) -> None:
    first, second = (child(name, ENDS_POLITELY, tmp_path) for name in ("first", "second"))

    with supervised([first], [second]) as supervisor:
        supervisor.ask()
        supervisor.wait()

    asked_at = [float(one.log.read_text().split()[-1]) for one in (first, second)]
    assert asked_at == sorted(asked_at)


def test_who_ignores_the_request_is_killed_in_a_hurry(tmp_path: Path) -> None:
    with supervised([child("stubborn", IGNORES, tmp_path)]) as supervisor:
        pid = supervisor.pids()["stubborn"]
        supervisor.ask()
        time.sleep(0.2)
        assert is_alive(pid)

        supervisor.hurry()
        eventually(lambda: not is_alive(pid))


def test_what_a_process_left_behind_ends_with_it(tmp_path: Path) -> None:
    parent = f"""
import subprocess, sys
print(subprocess.Popen([sys.executable, '-c', {IGNORES!r}]).pid)
{WORKS}
"""
    with supervised([child("parent", parent, tmp_path)]):
        left = int((tmp_path / "parent.log").read_text().split()[0])
        assert is_alive(left)

    eventually(lambda: not is_alive(left))


def test_processes_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from deploy.child import Child, Program
from deploy.supervisor import Supervisor
part = Child(Program('part', (sys.executable, '-c', {WORKS!r})),
             environment=dict(os.environ), logs=Path({str(tmp_path)!r}))
supervisor = Supervisor([[part]])
supervisor.start()
print(supervisor.pids()['part'], flush=True)
supervisor.wait()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert is_alive(pid)

        starter.kill()

    eventually(lambda: not is_alive(pid))


def test_the_log_of_the_last_start_is_kept(tmp_path: Path) -> None:
    for word in ("one", "two"):
        with supervised([child("part", f"print({word!r}); {WORKS}", tmp_path)]):
            pass

    assert (tmp_path / "part.log").read_text() == "two\nready\n"
    assert (tmp_path / "part.log.1").read_text() == "one\nready\n"


def test_delays_double_until_it_has_lived_for_a_while() -> None:
    backoff = Backoff()

    assert [backoff.died(now) for now in (0, 10, 20)] == [0.2, 0.4, 0.8]
    assert backoff.died(20 + LOOP_SECONDS + 1) == 0.2


def test_delays_have_a_limit() -> None:
    backoff = Backoff()

    delays = [backoff.died(20.0 * death) for death in range(12)]

    assert delays[-1] == 10


def test_many_deaths_in_a_short_time_are_a_crash_loop() -> None:
    backoff = Backoff()

    delays = [backoff.died(float(death)) for death in range(LOOP_DEATHS)]

    assert delays[-1] is None
    assert None not in delays[:-1]


def test_who_expects_many_deaths_gets_no_crash_loop_and_short_delays() -> None:
    backoff = Backoff(Restarts(longest_seconds=0.2, loop_deaths=1_000))

    delays = [backoff.died(float(death)) for death in range(3 * LOOP_DEATHS)]

    assert set(delays) == {0.2}
