"""One process under a supervisor: its log, whether it is ready, how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

READY = b"ready"
"""A process that can work says so on standard output, in a line that begins with this word."""

LOG_LINES = 12
LEASH = Path(__file__).with_name("leash.py")


@dataclass(frozen=True)
class Program:
    """What to run, and under which name; the first of `argv` is a path."""

    name: str
    argv: tuple[str, ...]


class Child:
    """One program, started again as often as its supervisor likes.

    Its log begins anew with the object, the one before is kept as `NAME.log.1`; what later starts
    print is added. On Linux it is told to end when the thread that started it ends.
    """

    def __init__(
        self,
        program: Program,
        *,
        environment: Mapping[str, str],
        logs: Path,
        inherited: Sequence[int] = (),
    ) -> None:
        """`environment` is all that the program has; it inherits the open files `inherited`."""
        self.name = program.name
        self.log = logs / f"{program.name}.log"
        self.is_ready = False
        self._argv = program.argv
        self._environment = environment
        self._inherited = inherited
        self._process: subprocess.Popen[bytes] | None = None
        self._line = b""
        if self.log.exists():
            self.log.replace(self.log.with_suffix(".log.1"))

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How it ended, a negative number being a signal's; None while it runs or never did."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start the program; what an earlier one left behind is killed."""
        self.end()
        leash = (sys.executable, "-I", "-S", str(LEASH), str(os.getpid()))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - the platform's own programs
                [*leash, *self._argv],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,  # itself, so that it can still log when its supervisor is gone
                start_new_session=True,  # Ctrl-C is for the supervisor, who then stops all in order
                pass_fds=self._inherited,
            )
        os.set_blocking(self._output, False)

    def read(self) -> None:
        """Copy to the log what it printed since; does not wait."""
        if self._process is None:
            return
        with contextlib.suppress(BlockingIOError):
            while printed := os.read(self._output, 64 * 1024):
                *lines, self._line = (self._line + printed).split(b"\n")
                self.is_ready |= any(line.startswith(READY) for line in lines)
                with self.log.open("ab") as log:
                    log.write(printed)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """Kill the process and those it started, whether it runs or has left them behind."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill what is left and forget the process; the log stays."""
        if self._process is None:
            return
        self.kill()
        self._process.wait()
        self.read()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process, self._line, self.is_ready = None, b"", False

    def how_it_ended(self) -> str:
        """Its exit status or signal, and the last lines of its log."""
        status = self.exit_status
        assert status is not None
        how = f"exit status {status}" if status >= 0 else signal.Signals(-status).name
        return f"{how}; its log, {self.log}, ends:{self.log_tail()}"

    def log_tail(self) -> str:
        """The last lines of the log, each on a line of its own, indented."""
        self.read()
        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        return "".join(f"\n  {line}" for line in lines)

    @property
    def _output(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()
