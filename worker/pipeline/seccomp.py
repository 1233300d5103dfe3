"""The filter of system calls that a child runs under: what it may ask the kernel for.

A list of what is allowed; everything else fails with EPERM and does not end the child, since a
decoder or the C library may try something and do without: an image that is whole shall not be lost
for it, and a child that is hostile has nothing else to try either. Only a call of another
architecture's, which no library of ours makes, ends it.

With pixels and document mapped, a decoder needs memory, locks, the clock and its socket. No call
that is allowed takes a path, unless `fonts` stands behind Landlock.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass

from worker.pipeline import kernel


@dataclass(frozen=True)
class Architecture:
    """A machine's name in the kernel's audit, and the numbers of its system calls."""

    audit: int
    numbers: Mapping[str, int]


_NUMBERS = {
    "read": (0, 63),
    "close": (3, 57),
    "fstat": (5, 80),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "openat": (257, 56),
    "fcntl": (72, 25),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "brk": (12, 214),
    "madvise": (28, 233),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    "futex": (202, 98),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "clone": (56, 220),
    "clone3": (435, 435),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getrandom": (318, 278),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "prlimit64": (302, 261),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
"""The calls that are let through, some of them by their arguments: on x86_64, on aarch64."""

ARCHITECTURES = {
    "x86_64": Architecture(0xC000_003E, {name: number for name, (number, _) in _NUMBERS.items()}),
    "aarch64": Architecture(0xC000_00B7, {name: number for name, (_, number) in _NUMBERS.items()}),
}

_ONLY_WITH_FONTS = {"openat", "read", "pread64", "lseek"}

_OPEN_TO_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_DUPLICATE = 1030  # F_DUPFD_CLOEXEC: Python's mmap, from 3.13 on
_CLONE_THREAD = 0x0001_0000
_THREAD_FLAGS = 0x007D_0F00  # what pthread_create asks for, in glibc and in musl

_LOAD, _JUMP_EQUAL, _JUMP_ANY, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERROR, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000
_DENIED = _ERROR | errno.EPERM
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # where they stand in struct seccomp_data


def program(machine: str, *, threads: bool, fonts: bool) -> bytes:
    """The filter for `machine` in BPF; raises OSError where none is known.

    With `threads` a child may start threads of its own, but never a process; with `fonts` it may
    open files to read, so that something else has to say which.
    """
    if machine not in ARCHITECTURES:
        raise OSError(f"no filter of system calls is known for {machine}")
    architecture = ARCHITECTURES[machine]
    code = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_JUMP_EQUAL, architecture.audit, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
    ]
    conditions = _conditions(threads=threads)
    for name, number in architecture.numbers.items():
        if name in _ONLY_WITH_FONTS and not fonts:
            continue
        rule = conditions.get(name, [_step(_RETURN, _ALLOW)])
        code += [_step(_JUMP_EQUAL, number, 0, len(rule)), *rule]
    return b"".join([*code, _step(_RETURN, _DENIED)])


def install(filter_: bytes) -> None:
    """Put this process under a filter for good; raises OSError."""
    code = ctypes.create_string_buffer(filter_, len(filter_))
    kernel.prctl(kernel.PR_SET_SECCOMP, 2, _Program(len(filter_) // 8, ctypes.addressof(code)))


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]


def _conditions(*, threads: bool) -> dict[str, list[bytes]]:
    """What the arguments must be, for calls that are not always allowed."""
    no_clone = [_step(_RETURN, _DENIED)]
    return {
        "openat": _none_of(2, ~_OPEN_TO_READ),
        "fcntl": _equal(1, _DUPLICATE),
        # No code comes into being that was not there before
        "mmap": _none_of(2, mmap.PROT_EXEC),
        "mprotect": _none_of(2, mmap.PROT_EXEC),
        "prlimit64": _equal(0, 0),  # of nobody but itself
        "clone": _thread_only() if threads else no_clone,
        # Its flags lie in memory, which a filter cannot see; the C library falls back to clone
        "clone3": [_step(_RETURN, _ERROR | errno.ENOSYS)],
    }


def _none_of(argument: int, bits: int) -> list[bytes]:
    return [
        _load(argument),
        _step(_JUMP_ANY, bits & 0xFFFF_FFFF, 0, 1),
        _step(_RETURN, _DENIED),
        _step(_RETURN, _ALLOW),
    ]


def _equal(argument: int, value: int) -> list[bytes]:
    return [
        _load(argument),
        _step(_JUMP_EQUAL, value, 0, 1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _DENIED),
    ]


def _thread_only() -> list[bytes]:
    return [
        _load(0),
        _step(_JUMP_ANY, ~_THREAD_FLAGS & 0xFFFF_FFFF, 2, 0),
        _step(_JUMP_ANY, _CLONE_THREAD, 0, 1),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _DENIED),
    ]


def _load(argument: int) -> bytes:
    """The lower half of an argument, which is all that the kernel takes of these; little-endian."""
    return _step(_LOAD, _ARGUMENTS + 8 * argument)


def _step(code: int, value: int, if_true: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_not, value)
