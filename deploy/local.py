"""The whole platform on one machine: `octavo up`, and `Platform` for demo, tests and benchmarks.

The same processes as on many machines, with servers from pip. Below the directory lie the servers'
data and `services.json` with their passwords, `settings.json`, the processes' logs, and `api_key`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import click

from deploy import platform_lock
from deploy.backoff import Backoff, Restarts
from deploy.child import Child, Program
from deploy.embedded import ports, private_file
from deploy.embedded.errors import ServiceError
from deploy.embedded.services import Services, Urls
from deploy.interrupts import interrupts
from deploy.supervisor import STOP_SECONDS, Failure, Supervisor
from shared.roles import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# -P: a folder named `shared` where somebody happens to stand is not ours.
PYTHON = (sys.executable, "-P", "-m")

ROLES = {"gateway": Role.GATEWAY, "dispatcher": Role.DISPATCHER, "sweeper": Role.SWEEPER}
"""As whom a process connects to the database; all others are workers."""
CHOICES = "settings.json"
"""Which settings the last start had, beside the addresses and secrets in `services.json`."""

LAST_SECONDS = 9.0
"""What a worker takes to end once it holds no work, at most."""

MEND_SECONDS = 60.0
"""Within this a server that was taken away is back."""

CPU_SLOTS = 2
"""Opening and rendering takes a tenth of what reading does: two at once feed many engines."""


class Platform:
    """Servers, gateway, dispatcher, sweeper and workers, as one thing that starts and stops."""

    def __init__(  # noqa: PLR0913 - all but one by name
        self,
        directory: Path,
        *,
        engine: str = "paddle",
        engine_workers: int = 1,
        cpu_slots: int = CPU_SLOTS,
        gateways: int = 1,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        restarts: Restarts | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`port` 0 is any free one; `settings` are OCTAVO_* variables that override all others.

        Of several `gateways` the first has `port`, the others any free one; clients choose as a
        balancer would.
        `tell` hears, from another thread, of every process that died and is started again.
        """
        self.directory = directory.resolve()
        self.logs = self.directory / "logs"
        self._key_file = self.directory / "api_key"
        self._engine, self._engine_workers, self._cpu_slots = engine, engine_workers, cpu_slots
        self._ports, self._gateways = [port], gateways
        self._settings, self._tell = settings or {}, tell
        self._restarts = restarts or Restarts()
        self._services = Services(self.directory)
        self._server_deaths: dict[str, Backoff] = {}
        self._supervisor: Supervisor | None = None
        self._outages: set[str] = set()
        self._is_asked = self._is_hurried = False
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Start everything; raises Failure if that cannot be."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self.stop()

    @property
    def url(self) -> str:
        """Where the gateway answers; of several, the first."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """Where each gateway answers."""
        return [f"http://{ports.HOST}:{port}" for port in self._ports]

    @property
    def servers(self) -> Urls:
        """Where the servers are; database and broker with their passwords."""
        return self._services.urls

    @property
    def api_key(self) -> str:
        """A key of the first tenant."""
        return self._key_file.read_text()

    @property
    def environment(self) -> dict[str, str]:
        """The variables of an operator's command, those of this process included.

        With them it is the owner of the database. A process of the platform runs with those of
        `environment_of`.
        """
        return {
            "OCTAVO_PUBLIC_URL": self.url,
            **os.environ,
            **self._services.environment(),
            **self._choices,
        }

    @property
    def _choices(self) -> dict[str, str]:
        """What was chosen for this start; `octavo doctor` reads it."""
        return {
            "OCTAVO_ENGINES": self._engine,
            # Work is given back before the supervisor's patience ends, and nobody balances.
            "OCTAVO_DRAIN_SECONDS": f"{STOP_SECONDS - LAST_SECONDS:g}",
            "OCTAVO_UNREADY_SECONDS": "0" if self._gateways == 1 else "1",
            **self._settings,
        }

    def environment_of(self, program: str) -> dict[str, str]:
        """The variables that a process of the platform runs with, in its own role and no other."""
        environment = self.environment
        environment.pop("OCTAVO_ROLE_PASSWORDS", None)
        role = ROLES.get(program.partition("-")[0], Role.WORKER)  # gateway-2 is a gateway
        url = urlsplit(environment["OCTAVO_DATABASE_URL"])
        place = url.netloc.rpartition("@")[2]
        user = f"{role}:{self._services.role_passwords[role]}"
        own = url._replace(netloc=f"{user}@{place}").geturl()
        return environment | {"OCTAVO_DATABASE_URL": own}

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._is_asked

    def pids(self) -> dict[str, int]:
        """The process ids of processes and servers that run, by name."""
        processes = self._supervisor.pids() if self._supervisor else {}
        return {**processes, **self._services.pids()}

    def start(self) -> None:
        """Return when all of it can be used, or `interrupt` was called; otherwise raises Failure."""
        with contextlib.ExitStack() as undo:
            lock = undo.enter_context(platform_lock.alone(self.directory))
            first = self._ports[0]
            if first and not ports.is_free(first):
                raise Failure(f"port {first} is taken; choose another, or 0 for any free one")
            undo.callback(self._stop_services)
            self._start_services()
            free = undo.enter_context(ports.chosen(self._gateways, taken=[first]))
            self._ports = [first or free[0], *free[1:]]
            chosen = {"OCTAVO_PUBLIC_URL": self.url, **self._choices}
            private_file.write(self.directory / CHOICES, json.dumps(chosen, indent=2))
            self.logs.mkdir(mode=0o700, exist_ok=True)
            self._prepare_database()
            self._supervisor = self._make_supervisor(lock)
            undo.callback(self._stop_processes)
            self._pass_on()
            self._supervisor.start()
            self._undo = undo.pop_all()

    def wait(self) -> None:
        """Return when the processes were told to stop and did; Failure if they cannot go on."""
        assert self._supervisor is not None
        self._supervisor.wait()

    def interrupt(self) -> None:
        """Ask for the end, the second time in a hurry; returns at once, for signal handlers."""
        self._is_asked, self._is_hurried = True, self._is_asked
        self._pass_on()

    def stop(self) -> None:
        """Stop the processes in order, then the servers."""
        self._undo.close()

    def restart(self, name: str) -> None:
        """End one process in order and start it again; returns when the new one is ready."""
        assert self._supervisor is not None
        self._supervisor.restart(name)

    @contextlib.contextmanager
    def outage(self, server: str, number: signal.Signals = signal.SIGKILL) -> Iterator[None]:
        """Take a server away for the block: killed and not started again, or frozen by SIGSTOP.

        It can be used again when the block has ended.
        """
        self._outages.add(server)
        pid = self._services.pids()[server]
        frozen = [pid, *_children(pid)] if number is signal.SIGSTOP else [pid]
        for each in frozen:
            os.kill(each, number)
        try:
            yield
        finally:
            if number is signal.SIGSTOP:
                for each in frozen:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(each, signal.SIGCONT)
            self._outages.discard(server)  # and so it is mended
            self._services.await_ready(timeout_seconds=MEND_SECONDS)

    def _start_services(self) -> None:
        try:
            self._services.start()
        except ServiceError as error:
            raise Failure(str(error)) from error

    def _stop_services(self) -> None:
        self._services.stop(timeout_seconds=4 if self._is_hurried else 20)

    def _stop_processes(self) -> None:
        assert self._supervisor is not None
        self._supervisor.ask()
        with contextlib.suppress(Failure):  # whoever waited has heard of it
            self._supervisor.wait()

    def _pass_on(self) -> None:
        """Tell the supervisor, if there is one yet, what this was told."""
        if self._supervisor is None or not self._is_asked:
            return
        self._supervisor.ask()
        if self._is_hurried:
            self._supervisor.hurry()

    def _prepare_database(self) -> None:
        argv = [*PYTHON, "deploy.first_start", str(self._key_file)]
        done = subprocess.run(  # noqa: S603 - our own program
            argv,
            env=self.environment
            | {"OCTAVO_ROLE_PASSWORDS": json.dumps(self._services.role_passwords)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C does not leave a schema half made
            check=False,
        )
        (self.logs / "first-start.log").write_bytes(done.stdout)
        if done.returncode:
            tail = done.stdout.decode(errors="replace").strip().replace("\n", "\n  ")
            raise Failure(f"the database could not be prepared:\n  {tail}")

    def _make_supervisor(self, lock: int) -> Supervisor:
        groups = [
            [
                Child(
                    program,
                    environment=self.environment_of(program.name),
                    logs=self.logs,
                    inherited=[lock],
                )
                for program in group
            ]
            for group in self._programs()
        ]
        return Supervisor(
            groups, watch=self._mend_services, tell=self._tell, restarts=self._restarts
        )

    def _programs(self) -> list[list[Program]]:
        """In the order in which they are stopped: who asks first, who works after."""
        cpu_worker = _program("cpu-worker", "worker", "cpu", "--slots", str(self._cpu_slots))
        engine_workers = [
            _program(name, "worker", "engine", "--engine", self._engine)
            for name in _numbered("engine-worker", self._engine_workers)
        ]
        gateways = [
            _program(name, "gateway", "--port", str(port))
            for name, port in zip(_numbered("gateway", self._gateways), self._ports, strict=True)
        ]
        return [
            gateways,
            [_program("dispatcher", "dispatcher")],
            [cpu_worker, *engine_workers],
            [_program("sweeper", "sweeper")],
        ]

    def _mend_services(self) -> None:
        """Start servers that died; raises Failure where that does not help."""
        if self._outages:
            return
        for name in self._services.dead():
            self._tell(f"{name} died; starting it again")
            deaths = self._server_deaths.setdefault(name, Backoff(self._restarts))
            if deaths.died(time.monotonic()) is None:
                raise Failure(f"{name} dies again and again; see {self.directory / name}.log")
        before = self._services.urls
        try:
            self._services.restart_dead()
        except ServiceError as error:
            raise Failure(str(error)) from error
        if self._services.urls != before:
            raise Failure("a server came back at another address, its port being taken")


def _children(pid: int) -> list[int]:
    """Processes that a process has begun, on Linux."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for each in lists for child in each.read_text().split()]


def _program(name: str, *arguments: str) -> Program:
    return Program(name, (*PYTHON, "deploy.processes", *arguments))


def _numbered(name: str, count: int) -> list[str]:
    """`name`, `name-2`, `name-3` ..."""
    return [name if number == 1 else f"{name}-{number}" for number in range(1, count + 1)]


@click.command()
@click.option(
    "--dir",
    "directory",
    default=Path("var"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="For data, logs and passwords.",
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Of the HTTP API; 0 is any free one.",
)
@click.option(
    "--workers",
    default=os.cpu_count,
    show_default="one a core",
    type=click.IntRange(min=1),
    help="How many processes read pages.",
)
@click.option("--engine", default="paddle", show_default=True, help="What they read with.")
def up(directory: Path, port: int, workers: int, engine: str) -> None:
    """Run the whole platform on this machine until Ctrl-C; a second Ctrl-C does not wait."""
    began = time.monotonic()
    platform = Platform(
        directory, engine=engine, engine_workers=workers, port=port, tell=_say_to_operator
    )
    try:
        with interrupts(platform.interrupt), platform:
            if not platform.is_stopping:
                click.echo(_welcome(platform, seconds=time.monotonic() - began))
            platform.wait()
    except (Failure, OSError) as error:
        raise click.ClickException(str(error)) from error


def _say_to_operator(line: str) -> None:
    click.echo(line, err=True)


def _welcome(platform: Platform, *, seconds: float) -> str:
    sample = _shown(Path(__file__).parent / "samples" / "octavo.pdf")
    program = _shown(Path(sysconfig.get_path("scripts")) / "octavo")
    return f"""\
Octavo is up ({seconds:.1f} s).

  URL      {platform.url}
  API key  {platform.api_key}
  Logs     {_shown(platform.logs)}

Try it from another terminal:

  export OCTAVO_URL={platform.url} OCTAVO_API_KEY={platform.api_key}
  {program} submit --wait {sample}

Ctrl-C stops it; jobs that are not finished go on at the next start.
"""


def _shown(path: Path) -> Path:
    """The path as somebody who stands here would write it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
