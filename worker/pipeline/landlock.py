"""Landlock: no path, no TCP port, no signal or abstract socket beyond what a ruleset lets through.

What a process has open stays open to it. See landlock(7); each version of the kernel's interface
(ABI) refuses more than the one before, and all that is known here is refused.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from worker.pipeline import kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # on every machine
_TELL_VERSION = 1
_BENEATH_PATH = 1
_READ_FILE, _READ_DIRECTORY = 1 << 2, 1 << 3

_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""How many rights on files there are from this ABI on."""
_TCP_FROM, _SCOPES_FROM = 4, 6
_TCP = 0b11  # bind, connect
_SCOPES = 0b11  # abstract sockets, signals


class _Refused(ctypes.Structure):
    """`struct landlock_ruleset_attr`: what is refused unless a rule lets it through."""

    _fields_ = [
        ("files", ctypes.c_uint64),
        ("tcp", ctypes.c_uint64),
        ("scopes", ctypes.c_uint64),
    ]


class _Rule(ctypes.Structure):
    """`struct landlock_path_beneath_attr`."""

    _pack_ = 1
    _layout_ = "ms"
    _fields_ = [("rights", ctypes.c_uint64), ("directory", ctypes.c_int32)]


def version() -> int:
    """The ABI that the kernel has; raises OSError where it has none."""
    return kernel.syscall(_CREATE_RULESET, None, 0, _TELL_VERSION)


def ruleset(readable: Iterable[Path] = ()) -> int:
    """A descriptor of the rules: all is refused but reading below those folders that exist.

    Raises OSError.
    """
    abi = version()
    refused = _Refused(
        files=(1 << max(n for since, n in _FILE_RIGHTS.items() if since <= abi)) - 1,
        tcp=_TCP if abi >= _TCP_FROM else 0,
        scopes=_SCOPES if abi >= _SCOPES_FROM else 0,
    )
    rules = kernel.syscall(_CREATE_RULESET, _raw(refused), ctypes.sizeof(refused), 0)
    for folder in readable:
        with suppress(FileNotFoundError):
            _let_read(rules, os.open(folder, os.O_PATH | os.O_CLOEXEC))
    return rules


def restrict(rules: int) -> None:
    """Put this process, which may gain no privileges, under the rules for good; raises OSError."""
    kernel.syscall(_RESTRICT_SELF, rules, 0)


def _let_read(rules: int, directory: int) -> None:
    try:
        rule = _Rule(_READ_FILE | _READ_DIRECTORY, directory)
        kernel.syscall(_ADD_RULE, rules, _BENEATH_PATH, _raw(rule), 0)
    finally:
        os.close(directory)


def _raw(structure: ctypes.Structure) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(bytes(structure), ctypes.sizeof(structure))
