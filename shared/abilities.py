"""What can be asked of each engine. The gateway refuses the rest before it takes a byte."""

from __future__ import annotations

from dataclasses import dataclass

from shared.options import Mode, Task


@dataclass(frozen=True)
class Abilities:
    """What an engine can be asked for."""

    modes: tuple[Mode, ...] = ()  # from few tokens to many; none: it ignores the option
    tasks: frozenset[Task] = frozenset({Task.MARKDOWN, Task.TEXT})

    def has(self, mode: Mode) -> bool:
        """Whether a job may ask for this mode."""
        return mode is Mode.AUTO or not self.modes or mode in self.modes


_FIVE = (Mode.TINY, Mode.SMALL, Mode.BASE, Mode.LARGE, Mode.GUNDAM)
_EVERY_TASK = frozenset(Task)
_OF = {
    "deepseek-ocr": Abilities(_FIVE, _EVERY_TASK),
    "deepseek-ocr-2": Abilities((Mode.BASE, Mode.GUNDAM), _EVERY_TASK),
    "fake": Abilities(_FIVE, _EVERY_TASK),
    "remote": Abilities(tasks=_EVERY_TASK),  # its server has one way to look at a page
}


def of(engine: str) -> Abilities:
    """What that engine can be asked for."""
    return _OF.get(engine, Abilities())
