"""Commands of the server, found by their entry points and imported only when they are run.

So the command line works where only the client is installed, and `octavo --help` starts fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

import click

GROUP = "octavo.commands"


class WithServerCommands(click.Group):
    """A group that also has the commands of the entry points `octavo.commands`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, the client's first."""
        own = super().list_commands(ctx)
        return [*own, *sorted(point.name for point in _entry_points() if point.name not in own)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; a server's is imported when it is run."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        found = (point for point in _entry_points() if point.name == cmd_name)
        return next((_ServerCommand(point) for point in found), None)


class _ServerCommand(click.Command):
    """Stands for a command of the server until it is run."""

    def __init__(self, point: EntryPoint) -> None:
        super().__init__(
            point.name, short_help=f"Part of the server; see 'octavo {point.name} --help'."
        )
        self._point = point

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        """The context of the true command, which click then runs in place of this one."""
        return self._load().make_context(info_name, args, parent, **extra)

    def _load(self) -> click.Command:
        try:
            return cast("click.Command", self._point.load())
        except ModuleNotFoundError as error:
            raise click.UsageError(
                f"this command needs: pip install 'octavo[local]' (no module {error.name!r})"
            ) from error


def _entry_points() -> Iterable[EntryPoint]:
    return entry_points(group=GROUP)
