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


_NAMES = (
    "read close fstat lseek pread64 openat fcntl"
    " mmap mprotect munmap mremap brk madvise"
    " rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall"
    " futex sched_yield sched_getaffinity set_robust_list rseq clone clone3"
    " getpid gettid getrandom clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday"
    " getrusage prlimit64 sendto recvfrom exit exit_group"
).split()
_X86_64 = (
    "0 3 5 8 17 257 72 9 10 11 25 12 28 13 14 15 131 219 202 24 204 273 334 56 435"
    " 39 186 318 228 229 230 35 96 98 302 44 45 60 231"
)
_AARCH64 = (
    "63 57 80 62 67 56 25 222 226 215 216 214 233 134 135 139 132 128 98 124 123 99 293 220 435"
    " 172 178 278 113 114 115 101 169 165 261 206 207 93 94"
)

ARCHITECTURES = {
    name: Architecture(audit, dict(zip(_NAMES, map(int, numbers.split()), strict=True)))
    for name, audit, numbers in (
        ("x86_64", 0xC000_003E, _X86_64),
        ("aarch64", 0xC000_00B7, _AARCH64),
    )
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
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]  # noqa: RUF012


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
