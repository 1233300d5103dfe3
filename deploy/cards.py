"""One engine worker for each card of this machine, kept running; each sees its own card alone.

A card is named by its UUID: numbers change when one falls out. One whose worker dies three times
within ten minutes is taken out, and the others go on; they end together when they are told to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from deploy.child import LEASH
from deploy.interrupts import interrupts

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0  # after which what has not ended in order is killed
MOST_DEATHS = 3
DEATHS_SECONDS = 600.0
RESTART_SECONDS = 2.0

VISIBLE = "CUDA_VISIBLE_DEVICES"
ASK = ("nvidia-smi", "--query-gpu=index,uuid", "--format=csv,noheader")


class NoCards(Exception):
    """There is no card to work with; the message says why."""


def visible(environment: Mapping[str, str]) -> list[str]:
    """The UUIDs of the cards that a process with this environment sees. Raises NoCards."""
    try:
        listed = subprocess.run(  # noqa: S603 - the driver's own program
            ASK, capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoCards(f"nvidia-smi does not answer: {error}") from error
    return chosen(listed.stdout, environment.get(VISIBLE))


def chosen(listed: str, wanted: str | None) -> list[str]:
    """The UUIDs among those listed, `0, GPU-...` a line, that are wanted. Raises NoCards.

    Wanted are numbers or UUIDs, or their beginnings, with commas; all where it is None.
    """
    cards = dict(line.replace(" ", "").split(",") for line in listed.splitlines() if line.strip())
    found = list(cards.values()) if wanted is None else _named(cards, wanted)
    if not found:
        raise NoCards(f"{VISIBLE} is {wanted!r}; there are {len(cards)} cards")
    return found


def _named(cards: Mapping[str, str], wanted: str) -> list[str]:
    found: list[str] = []
    for name in filter(None, (part.strip() for part in wanted.split(","))):
        uuids = [cards[name]] if name in cards else _beginning(cards, name)
        if len(uuids) != 1:
            raise NoCards(f"{VISIBLE}: {name} is no card, or several")
        found += [uuid for uuid in uuids if uuid not in found]
    return found


def _beginning(cards: Mapping[str, str], name: str) -> list[str]:
    return [uuid for uuid in cards.values() if uuid.startswith(name)]


class Card:
    """A card and the worker on it."""

    def __init__(self, uuid: str, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.uuid = uuid
        self.is_out = False
        self._command = command
        self._environment = {**environment, VISIBLE: uuid}
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque(maxlen=MOST_DEATHS)
        self._due = 0.0

    @property
    def pid(self) -> int | None:
        """Of the worker while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def keep(self, now: float, tell: Callable[[str], None]) -> None:
        """Start the worker where it does not run and should; take the card out where it dies."""
        if self._process is not None and self._process.poll() is not None:
            self._mourn(now, self._process.returncode, tell)
        if self._process is None and not self.is_out and now >= self._due:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *self._command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us, who tell all of them to end
            )

    def _mourn(self, now: float, status: int, tell: Callable[[str], None]) -> None:
        self._process, self._due = None, now + RESTART_SECONDS
        self._deaths.append(now)
        often = len(self._deaths) == MOST_DEATHS
        self.is_out = often and now - self._deaths[0] <= DEATHS_SECONDS
        what = "taken out" if self.is_out else "starting it again"
        tell(f"{self.uuid}: its worker ended with status {status}; {what}")

    def end(self) -> None:
        """Tell the worker to end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Make it end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def keep(
    cards: Sequence[Card], is_told_to_stop: Callable[[], bool], tell: Callable[[str], None]
) -> None:
    """Keep a worker on each card until told to stop. Raises NoCards once all are taken out."""
    try:
        while not is_told_to_stop():
            for card in cards:
                card.keep(time.monotonic(), tell)
            if all(card.is_out for card in cards):
                raise NoCards("all cards were taken out: their workers died again and again")
            time.sleep(POLL_SECONDS)
    finally:
        _stop(cards)


def _stop(cards: Sequence[Card]) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    for card in cards:
        card.end()
    while any(card.pid for card in cards) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for card in cards:
        card.kill()


def worker_command(engine: str) -> list[str]:
    """What runs on a card. -P: a folder named `shared` where somebody stands is not ours."""
    return [sys.executable, "-P", "-m", "deploy.processes", "worker", "engine", "--engine", engine]


def run(engine: str, tell: Callable[[str], None]) -> None:
    """A worker on each card that this process sees, until it is told to end. Raises NoCards."""
    uuids = visible(os.environ)
    tell(f"{len(uuids)} cards: {', '.join(uuids)}")
    told: list[bool] = []
    with interrupts(lambda: told.append(True)):
        keep(
            [Card(uuid, worker_command(engine), os.environ) for uuid in uuids],
            lambda: bool(told),
            tell,
        )
