"""Pages on their way from bytes to views: decoded, resized and cut, before the network sees them.

A page takes a tenth of a second of a core, so beside a card there is a `Crew` of processes for it,
and a page that kills or hangs its process costs nobody else anything. Beside a network that lives
on the same cores there is nothing to win by that: `Here` does it in the engine's own process.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

import numpy as np

from shared.errors import InternalError, OctavoError, PageUnreadable
from worker.engine import images
from worker.engine.deepseek import choice, views
from worker.engine.deepseek.views import MODES, Mode, Pixels, Views

PREPARER = ("-m", "worker.engine.deepseek.preparer")
MOST_DEATHS = 10  # in a row, after which it is not for the pages


def _most_bytes(mode: Mode) -> int:
    return 3 * (mode.side**2 + mode.most_tiles * mode.tile**2)


BUFFER_BYTES = max(_most_bytes(mode) for modes in MODES.values() for mode in modes.values())

Prepared = tuple[int, Views | OctavoError]


class CrewLost(Exception):
    """The processes that prepare pages die one after the other."""


class Intake(Protocol):
    """Takes pages in, and gives them back cut up."""

    @property
    def room(self) -> int:
        """How many more pages it can begin now."""

    def put(self, page_id: int, image: bytes, modes: Mapping[str, Mode]) -> None:
        """Begin a page, for which there must be room; of several modes, by what it shows."""

    def take(self, patience_seconds: float) -> list[Prepared]:
        """The pages that are done; where none is, those that are within the patience."""

    def drop(self, page_id: int) -> None:
        """Forget a page. Nothing, where it is not here."""

    def close(self) -> None:
        """End what was begun."""


class Here:
    """One page at a time, at once."""

    def __init__(self) -> None:
        self._done: list[Prepared] = []

    @property
    def room(self) -> int:
        """How many more pages it can begin now."""
        return int(not self._done)

    def put(self, page_id: int, image: bytes, modes: Mapping[str, Mode]) -> None:
        """Prepare a page."""
        try:
            page = images.decoded(image)
            self._done.append((page_id, views.of(page, choice.among(modes, page))))
        except OctavoError as error:
            self._done.append((page_id, error))

    def take(self, patience_seconds: float) -> list[Prepared]:  # noqa: ARG002 - it is done
        """The page that was put, if one was."""
        done, self._done = self._done, []
        return done

    def drop(self, page_id: int) -> None:
        """Forget a page."""
        self._done = [done for done in self._done if done[0] != page_id]

    def close(self) -> None:
        """Nothing is open."""


@dataclass(eq=False)
class _Hand:
    """A process that prepares one page at a time, and the memory in which it leaves the views."""

    process: subprocess.Popen[bytes]
    line: Connection
    memory: mmap.mmap
    page: int | None = None

    def bury(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self.line.close()
        self.memory.close()


class Crew:
    """So many processes. They end when this one does: then their line is cut."""

    def __init__(self, count: int) -> None:
        self._hands = [_hired() for _ in range(count)]
        self._deaths = 0  # since a page was last prepared

    @property
    def room(self) -> int:
        """How many more pages it can begin now."""
        return sum(hand.page is None for hand in self._hands)

    def put(self, page_id: int, image: bytes, modes: Mapping[str, Mode]) -> None:
        """Begin a page, for which there must be room."""
        hand = next(hand for hand in self._hands if hand.page is None)
        hand.page = page_id
        order = {name: asdict(mode) for name, mode in modes.items()}
        try:
            hand.line.send_bytes(json.dumps(order).encode())
            hand.line.send_bytes(image)
        except OSError:
            return  # it is dead; `take` finds it so

    def take(self, patience_seconds: float) -> list[Prepared]:
        """The pages that are done; where none is, those that are within the patience.

        Raises CrewLost.
        """
        busy = {hand.line: hand for hand in self._hands if hand.page is not None}
        return [
            self._answer(busy[line])
            for line in wait(busy, patience_seconds)
            if isinstance(line, Connection)
        ]

    def drop(self, page_id: int) -> None:
        """Forget a page; who has it in hand may be hanging on it."""
        for hand in self._hands:
            if hand.page == page_id:
                self._replace(hand)
                return

    def close(self) -> None:
        """End all."""
        for hand in self._hands:
            hand.bury()
        self._hands.clear()

    def _answer(self, hand: _Hand) -> Prepared:
        page_id = hand.page
        assert page_id is not None
        try:
            said = json.loads(hand.line.recv_bytes())
        except (EOFError, OSError):
            self._deaths += 1
            if self._deaths == MOST_DEATHS:
                raise CrewLost(f"{MOST_DEATHS} of them, without a page prepared") from None
            self._replace(hand)
            return page_id, PageUnreadable("The page image killed the process that decodes it.")
        hand.page = None
        self._deaths = 0
        return page_id, _understood(said, hand.memory)

    def _replace(self, hand: _Hand) -> None:
        hand.bury()
        self._hands[self._hands.index(hand)] = _hired()


def _hired() -> _Hand:
    ours, theirs = socket.socketpair()
    memory = os.memfd_create("views")
    os.ftruncate(memory, BUFFER_BYTES)
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-P", *PREPARER, str(theirs.fileno()), str(memory)],
            pass_fds=[theirs.fileno(), memory],
            stdin=subprocess.DEVNULL,
        )
    mapped = mmap.mmap(memory, BUFFER_BYTES)
    os.close(memory)
    return _Hand(process, Connection(ours.detach()), mapped)


def _understood(said: dict[str, Any], memory: mmap.mmap) -> Views | OctavoError:
    """What a process said, its pixels copied out of its memory."""
    if "unreadable" in said:
        return PageUnreadable(said["unreadable"])
    if "failed" in said:
        return InternalError(said["failed"])
    mode, grid = Mode(**said["mode"]), (said["grid"][0], said["grid"][1])
    whole, *tiles = _pictures(memory, mode, said["tiles"])
    return Views(whole, tuple(tiles), grid, mode, (said["size"][0], said["size"][1]))


def _pictures(memory: mmap.mmap, mode: Mode, tiles: int) -> Iterator[Pixels]:
    start = 0
    for side in [mode.side, *[mode.tile] * tiles]:
        flat = np.frombuffer(memory, np.uint8, 3 * side * side, start)
        yield flat.reshape(side, side, 3).copy()
        start += flat.size
