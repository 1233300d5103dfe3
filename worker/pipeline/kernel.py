"""The system calls of Linux that Python does not offer, and which machine they are made on."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys

CLONE_NEWIPC, CLONE_NEWUSER = 0x0800_0000, 0x1000_0000
CLONE_NEWPID, CLONE_NEWNET = 0x2000_0000, 0x4000_0000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38

MACHINE = platform.machine() if sys.maxsize > 2**32 else "a Python of 32 bits"
"""As the kernel calls it: x86_64, aarch64."""

_CLONE = {"x86_64": 56, "aarch64": 220}
_CAPABILITIES_VERSION = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)
_libc_held = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock, as a fork must


def syscall(number: int, *arguments: int | ctypes.Array[ctypes.c_char] | None) -> int:
    """The result of a system call; raises OSError."""
    _libc.syscall.restype = ctypes.c_long
    return _checked(_libc.syscall(ctypes.c_long(number), *map(_word, arguments)))


def _word(argument: int | ctypes.Array[ctypes.c_char] | None) -> object:
    return ctypes.c_long(argument) if isinstance(argument, int) else argument


def prctl(option: int, value: int, pointer: ctypes.Structure | None = None) -> None:
    """Change what holds for this process; raises OSError."""
    third = None if pointer is None else ctypes.byref(pointer)
    _checked(_libc.prctl(option, ctypes.c_ulong(value), third, None, None))


def unshare(namespaces: int) -> None:
    """Move this process to namespaces of its own; raises OSError."""
    _checked(_libc.unshare(namespaces))


def fork(namespaces: int = 0) -> int:
    """`os.fork`, with the child in namespaces of its own; raises OSError, also where it cannot.

    Only for a process of one thread: the C library is not told.
    """
    if not namespaces:
        return os.fork()
    if MACHINE not in _CLONE:
        raise OSError(f"no system call for a process namespace is known on {MACHINE}")
    flags = ctypes.c_long(namespaces | signal.SIGCHLD)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _libc_held.syscall(ctypes.c_long(_CLONE[MACHINE]), flags, None, None, None, None)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _checked(pid)


def drop_capabilities() -> None:
    """Give up all capabilities of this process; raises OSError."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    _checked(_libc.capset(header, nothing))


def exit_on(number: int) -> None:
    """Let this signal end the process, even where it is the first of a namespace.

    The kernel spares such a process all signals of its namespace that it does not handle.
    """
    _libc.signal.restype = ctypes.c_void_p
    _libc.signal(number, ctypes.cast(_libc._exit, ctypes.c_void_p))  # noqa: SLF001 (its name in C)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
