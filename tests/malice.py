"""A renderer that does evil instead of drawing: what a child is once a document has taken it over.

`PROGRAM` is a zygote whose children have this renderer, with layers switched off, as an ordinary
user where that is wanted. Its document is a script in JSON: the names of attacks, one a page, and
the facts that they need. What became of a page's attack is its error's detail.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import threading
from collections.abc import Callable
from mmap import PROT_EXEC, PROT_READ, PROT_WRITE, mmap
from pathlib import Path
from typing import Any, NoReturn

from shared.errors import DocumentInvalid
from worker.pipeline import kernel
from worker.pipeline.seccomp import ARCHITECTURES
from worker.pipeline.source import Drawn

PROGRAM = """
import functools, os, sys
sys.path.insert(0, sys.argv[1])
from tests import malice
from worker.pipeline import confinement, kernel, source, zygote

zygote.Confinement = functools.partial(
    confinement.Confinement, dict.fromkeys({off!r}, "switched off")
)
source.open_source, source.warm_up = malice.open_source, lambda: None
if {uid!r}:
    os.setgroups([])
    os.setresgid({uid!r}, {uid!r}, {uid!r})
    os.setresuid({uid!r}, {uid!r}, {uid!r})
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # as one that was never root
zygote.main(int(sys.argv[2]))
"""

DONE = "done"
_PAST_ALL_FILTERS = {335, 336}  # of x86_64: uretprobe and uprobe, which end whoever calls them
_DESCRIPTORS = range(3, 16)
_libc = ctypes.CDLL(None, use_errno=True)


def program(*, off: tuple[str, ...] = (), uid: int = 0) -> str:
    """The zygote's program, with these layers switched off."""
    return PROGRAM.format(off=off, uid=uid)


def script(attacks: list[str], **facts: Any) -> bytes:
    """The document that has these attacks carried out."""
    return json.dumps({"attacks": attacks, "facts": facts}).encode()


def open_source(content: mmap, *_: object, **__: object) -> Evil:
    """In the place of `source.open_source`."""
    words = json.loads(content[:])
    return Evil(words["attacks"], words["facts"])


class Evil:
    """In the place of a source."""

    def __init__(self, attacks: list[str], facts: dict[str, Any]) -> None:
        self.pages_total = len(attacks)
        self._attacks = attacks
        self._facts = facts

    def render(self, index: int, canvas: Callable[[int, int], mmap]) -> Drawn:
        """Try an attack; DocumentInvalid says what came of it, or the size is a lie."""
        try:
            said = ATTACKS[self._attacks[index]](self._facts)
        except (OSError, MemoryError, RuntimeError, ValueError) as error:
            raise DocumentInvalid(f"refused: {error!r}") from error
        if isinstance(said, tuple):
            width, height = said
            return Drawn(width, height, is_grey=False)
        raise DocumentInvalid(str(said or DONE))


def _read(path: str) -> None:
    with open(path, "rb") as file:  # noqa: PTH123
        assert file.read(1)


def _write(facts: dict[str, Any]) -> None:
    with open(f"{facts['folder']}/{os.getpid()}", "wb", buffering=0) as file:  # noqa: PTH123
        file.write(b"x")


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as attempt:
        attempt.settimeout(2)
        attempt.connect(address)
        attempt.send(b"the document says hello")


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _trace(pid: int) -> None:
    _checked(_libc.ptrace(16, pid, None, None))  # PTRACE_ATTACH
    os.waitpid(pid, 0x4000_0000)  # __WALL
    _libc.ptrace(17, pid, None, None)  # PTRACE_DETACH


def _memfd() -> None:
    os.ftruncate(os.memfd_create("more"), 1024**3)


def _call(name: str, *arguments: int) -> None:
    numbers = {
        "x86_64": {"io_uring_setup": 425, "keyctl": 250, "userfaultfd": 323, "bpf": 321},
        "aarch64": {"io_uring_setup": 425, "keyctl": 219, "userfaultfd": 282, "bpf": 280},
    }
    kernel.syscall(numbers[kernel.MACHINE][name], *arguments)


def _start_thread() -> None:
    thread = threading.Thread(target=int)
    thread.start()
    thread.join()


def _every_descriptor(action: Callable[[int], object]) -> None:
    """Do it to whichever descriptor lets it be done; raises OSError where none does."""
    errors = []
    for descriptor in _DESCRIPTORS:
        try:
            action(descriptor)
        except OSError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _flood(answer: bytes) -> NoReturn:
    while True:
        for descriptor in _DESCRIPTORS:
            _libc.send(descriptor, answer, len(answer), socket.MSG_DONTWAIT)


def _spin() -> NoReturn:
    while True:
        pass


def _use_other_calls() -> str:
    """Make every system call that is not allowed, with arguments that mean nothing."""
    allowed = set(ARCHITECTURES[kernel.MACHINE].numbers.values()) | _PAST_ALL_FILTERS
    let_through = []
    for number in set(range(1_024)) - allowed:
        ctypes.set_errno(0)
        _libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
        if ctypes.get_errno() != 1:  # EPERM
            let_through.append(number)
    return f"let through: {let_through}"


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


ATTACKS: dict[str, Callable[[dict[str, Any]], Any]] = {
    # Files
    "read a file": lambda _: _read("/etc/passwd"),
    "read the worker's environment": lambda facts: _read(f"/proc/{facts['victim']}/environ"),
    "read a font": lambda facts: _read(facts["font"]),
    "list a folder": lambda _: bool(list(Path("/").iterdir())) and None,
    "look at a file": lambda _: bool(Path("/etc/passwd").stat()) and None,
    "write a file": _write,
    "make a memory file": lambda _: _memfd(),
    # Network
    "connect to loopback": lambda facts: _connect(
        socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", facts["port"])
    ),
    "send a datagram": lambda _: _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 9)),
    "connect to a socket by path": lambda facts: _connect(
        socket.AF_UNIX, socket.SOCK_STREAM, facts["socket"]
    ),
    "connect to an abstract socket": lambda facts: _connect(
        socket.AF_UNIX, socket.SOCK_STREAM, "\0" + facts["abstract"]
    ),
    # Processes
    "fork": lambda _: _fork(),
    "start a thread": lambda _: _start_thread(),
    "execute a program": lambda _: os.execv("/bin/true", ["true"]),  # noqa: S606
    "signal the worker": lambda facts: os.kill(facts["victim"], 0),
    "trace the worker": lambda facts: _trace(facts["victim"]),
    "trace its zygote": lambda facts: _trace(facts["zygote"]),
    # The kernel
    "leave its user namespace": lambda _: kernel.unshare(kernel.CLONE_NEWUSER),
    "make code": lambda _: bool(mmap(-1, 4096, prot=PROT_READ | PROT_WRITE | PROT_EXEC)) and None,
    "set up io_uring": lambda _: _call("io_uring_setup", 1, _room()),
    "have a keyring": lambda _: _call("keyctl", 0, -3, 1),
    "handle its page faults": lambda _: _call("userfaultfd", 1),
    "load a BPF map": lambda _: _call("bpf", 0, _bpf_map(), 72),
    "make any other system call": lambda _: _use_other_calls(),
    # Resources
    "take 4 GiB": lambda _: bool(mmap(-1, 4 * 1024**3)) and None,
    "raise a limit": lambda _: __import__("resource").setrlimit(1, (1, 1)),
    "compute for ever": lambda _: _spin(),
    "enlarge the pixels": lambda _: _every_descriptor(lambda n: os.ftruncate(n, 2**40)),
    "write past the pixels": lambda _: _every_descriptor(lambda n: os.pwrite(n, b"x", 2**40)),
    "touch what lies past the pixels": lambda _: ctypes.string_at(_past_the_pixels()),
    # Lies
    "flood with nonsense": lambda _: _flood(b"\xff" * 16_000),
    "flood with answers": lambda _: _flood(b'{"width": 300, "height": 300, "is_grey": false}'),
    "claim 2**40 pixels": lambda _: (2**20, 2**20),
    "claim a negative size": lambda _: (-300, 300),
    "claim a size of 5,000 digits": lambda _: (10**4_000, 10**4_000),
    "claim more than there is": lambda _: (2_001, 2_000),
    "die": lambda _: os._exit(3),
    "crash": lambda _: ctypes.string_at(8),
}


_kept: list[Any] = []


def _room() -> int:
    _kept.append(ctypes.create_string_buffer(256))
    return ctypes.addressof(_kept[-1])


def _bpf_map() -> int:
    attributes = (ctypes.c_uint32 * 32)(2, 4, 4, 1)  # an array of one number
    _kept.append(attributes)
    return ctypes.addressof(attributes)


def _past_the_pixels() -> int:
    """An address in a mapping of the pixels, behind their end."""
    for descriptor in _DESCRIPTORS:
        address: int = _mmap(None, 2**28, PROT_READ, 1, descriptor, 0) or -1
        if address != -1 and address != ctypes.c_size_t(-1).value:
            return address + 2**27
    raise OSError("nothing can be mapped")


_mmap = _libc.mmap
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
