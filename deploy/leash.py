"""Runs a program that is told to end when whoever started it dies, even by SIGKILL.

    python leash.py PARENT PROGRAM [ARGUMENT ...]

PARENT is the process id of the starter, PROGRAM a path. The program takes this process's place and
id. Linux only: elsewhere it runs without the leash. The thread that starts it counts as starter:
it has to live as long as the program shall.

A program of its own, because code between fork and exec is not safe in a process with threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Put the leash on and become the program."""
    parent, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != int(parent):
            sys.exit(1)  # it died before the leash was on
    os.execv(program, [program, *arguments])  # noqa: S606 - the program is the caller's


if __name__ == "__main__":
    main()
