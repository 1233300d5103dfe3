"""What happens at Ctrl-C, at SIGTERM, and when the terminal is closed."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def interrupts(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` at each of these signals, in the main thread, in the middle of whatever it does.

    A closed terminal counts unless it was to be ignored from the start, as under `nohup`.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: act()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def give_up() -> None:
    """Leave whatever the main thread does; raises KeyboardInterrupt."""
    raise KeyboardInterrupt
