"""The processes of the platform, each as a command. Each prints `ready` once it can work."""

from __future__ import annotations

import signal
import threading
from typing import Any

import click

from shared import log
from shared.config import InvalidSettings
from shared.errors import OctavoError


class Process(click.Command):
    """A command that says in a line what an operator can mend, and crashes of all else."""

    def invoke(self, context: click.Context) -> Any:
        """Run it."""
        try:
            return super().invoke(context)
        except (InvalidSettings, OctavoError) as error:
            raise click.ClickException(str(error)) from error


@click.group()
def main() -> None:
    """Run one process of the platform in the foreground."""


@click.command(cls=Process)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8000, show_default=True)
def gateway(host: str, port: int) -> None:
    """Serve the HTTP API."""
    from api.run import serve  # noqa: PLC0415 - each command needs its own extra

    log.configure("gateway")
    serve(host, port)


@click.command(cls=Process)
def dispatcher() -> None:
    """Send due work to the broker."""
    from worker.dispatcher import Dispatcher  # noqa: PLC0415

    log.configure("dispatcher")
    stop = _told_to_stop()
    click.echo("ready")
    Dispatcher().run(stop)


@click.command(cls=Process)
def sweeper() -> None:
    """Rescue, resend, expire, purge and collect."""
    from worker import collector  # noqa: PLC0415
    from worker.sweeper import Sweeper  # noqa: PLC0415

    log.configure("sweeper")
    stop = _told_to_stop()
    sweeping = Sweeper()
    threading.Thread(target=collector.run, args=(stop,), name="collector", daemon=True).start()
    click.echo("ready")
    sweeping.run(stop)


@click.group()
def worker() -> None:
    """Do work: `cpu` prepares and assembles, `engine` reads pages, `gpu` does on every card."""


@worker.command(cls=Process)
@click.option("--slots", default=2, show_default=True, help="Units of work at once.")
def cpu(slots: int) -> None:
    """Open documents, render pages, assemble results."""
    from worker.run import run_cpu_worker  # noqa: PLC0415

    log.configure("worker-cpu")
    run_cpu_worker(slots)


@worker.command(cls=Process)
@click.option("--engine", "name", default="paddle", show_default=True)
def engine(name: str) -> None:
    """Read pages with one engine, which has a process of its own."""
    from worker.run import run_engine_worker  # noqa: PLC0415

    log.configure(f"worker-{name}")
    run_engine_worker(name)


@worker.command(cls=Process)
@click.option("--engine", "name", default="deepseek-ocr", show_default=True)
def gpu(name: str) -> None:
    """Keep a worker with that engine on every card that this process sees, each on its own."""
    from deploy import cards  # noqa: PLC0415

    try:
        cards.run(name, lambda said: click.echo(said, err=True))
    except cards.NoCards as error:
        raise click.ClickException(str(error)) from error


@click.command(cls=Process)
def migrate() -> None:
    """Bring the database to the schema of this version, and let its roles in."""
    from deploy.roles import let_in  # noqa: PLC0415
    from migrations.run import upgrade  # noqa: PLC0415

    upgrade()
    let_in()
    click.echo("ready")


def _told_to_stop() -> threading.Event:
    """An event that SIGTERM and SIGINT set.

    A thread waits for them: a handler would run in the main thread, which may be holding the lock
    of the very event that it is to set.
    """
    stop, numbers = threading.Event(), {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)

    def hear() -> None:
        signal.sigwait(numbers)
        stop.set()

    threading.Thread(target=hear, name="signals", daemon=True).start()
    return stop


for command in (gateway, dispatcher, sweeper, worker, migrate):
    main.add_command(command)

if __name__ == "__main__":
    main()
