"""The platform's processes, forked from one that has imported them all.

    python -m tests.forked LOGS < '{"gateway": ["gateway", "--port", "8000"], ...}'

A process that dies is forked again at once, which takes a tenth of what a start takes: so hundreds
of deaths fit into minutes. Each death is a line on standard output, `NAME SIGKILL`. Everything ends
when standard input is closed, or the process that holds it dies.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import threading
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def main(logs: Path) -> None:
    """Keep the processes that the first line names until the input ends."""
    programs: dict[str, list[str]] = json.loads(sys.stdin.readline())
    _import_all()
    running = {_fork(name, arguments, logs): name for name, arguments in programs.items()}
    threading.Thread(target=_end_with_the_input, args=(running,), daemon=True).start()
    while True:
        pid, status = os.wait()
        name = running.pop(pid)
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        how = signal.Signals(number).name if number else f"exit {os.WEXITSTATUS(status)}"
        print(name, how, flush=True)  # noqa: T201 - whoever keeps this process reads it
        running[_fork(name, programs[name], logs)] = name


def _import_all() -> None:
    """Do once what takes long and opens no connection."""
    import api.app
    from shared import storage
    from worker.app import app

    for module in ("celery.concurrency.thread", "celery.worker.consumer", "kombu.transport.redis"):
        importlib.import_module(module)
    app.loader.import_default_modules()  # the tasks
    storage.store()  # as the first request would
    api.app.create_app().openapi()


def _fork(name: str, arguments: list[str], logs: Path) -> int:
    if pid := os.fork():
        return pid
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    log = os.open(logs / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number, opened in enumerate((nothing, log, log)):
        os.dup2(opened, number)
    status = 1
    try:
        from deploy import processes
        from shared.config import settings

        os.environ["OCTAVO_DATABASE_URL"] = _database_url_of(arguments[0])
        settings.cache_clear()
        processes.main(arguments, standalone_mode=False)
        status = 0
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it is
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _database_url_of(program: str) -> str:
    """Each connects in its own role, as in a platform."""
    from shared.roles import Role
    from tests.acting import url_of

    return url_of(Role(f"octavo_{program}"))


def _end_with_the_input(running: dict[int, str]) -> None:
    sys.stdin.read()
    for pid in list(running):
        os.kill(pid, signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
