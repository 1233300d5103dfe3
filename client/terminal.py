"""What the command line writes: results to standard output, everything else to standard error.

Texts that were read, file names and the server's words are somebody else's. On a terminal they
lose their control characters, so that a document cannot move the cursor, change the title or
answer for the user. Into a pipe or a file a result goes byte by byte as it is.
"""

from __future__ import annotations

import logging
import sys
import time

from client.errors import ApiError

NOTICE_SECONDS = 5.0

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_CLEAN = {code: None for code in _CONTROLS if chr(code) not in "\n\t\f"}
_ONE_LINE = dict.fromkeys(_CONTROLS, " ")


def clean(text: str) -> str:
    """`text` without control characters, but with its lines, tabs and form feeds."""
    return text.translate(_CLEAN)


def one_line(text: str) -> str:
    """`text` with a space for each control character, so that it cannot pose as lines of ours."""
    return text.translate(_ONE_LINE)


def say(line: str) -> None:
    """Write one line to standard error."""
    sys.stderr.write(f"{one_line(line)}\n")
    sys.stderr.flush()


def say_error(error: Exception, *, about: str = "Error") -> None:
    """Write what went wrong to standard error, with what finds it in the server's log."""
    first, *more = error_lines(error)
    say(f"{about}: {first}")
    for line in more:
        say(f"  {line}")


def error_lines(error: Exception) -> list[str]:
    """What is to be said of `error`, the most general first."""
    if not isinstance(error, ApiError):
        return [str(error) or type(error).__name__]
    problem = error.problem
    wrong = [f"{part.get('pointer')}: {part.get('message')}" for part in problem.errors or []]
    found = f"code {problem.code}, request {problem.request_id or 'unknown'}"
    lines = [problem.title, problem.detail, *wrong, found]
    return list(dict.fromkeys(line for line in lines if line))


def write_line(line: str) -> None:
    """Write one line of a command's answer to standard output."""
    write_result(f"{one_line(line)}\n")


def write_result(text: str) -> None:
    """Write what was read to standard output: clean on a terminal, as it is elsewhere."""
    if sys.stdout.isatty() and not clean(text).endswith("\n"):
        text = f"{text}\n"  # the prompt comes next
    write_piece(text)


def write_piece(text: str) -> None:
    """Write a piece of what is being read, as `write_result` does."""
    encoding, errors = "utf-8", "strict"
    if sys.stdout.isatty():
        text, encoding, errors = clean(text), sys.stdout.encoding, "replace"
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode(encoding, errors))
    sys.stdout.buffer.flush()


class Notices(logging.Handler):
    """Says what the client logs, such as that a server does not answer; not more often than needed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, unless something was said just now."""
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + NOTICE_SECONDS
            say(record.getMessage())
