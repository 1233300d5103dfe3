"""What a child gives up, layer by layer, before it reads a byte of its document.

A zygote tries each layer once, in a process that it makes for that. What the host refuses is
missing and said so; what it allows, every child must have, or it opens nothing.

What each layer holds alone, and where another stands behind it, is asserted attack by attack in
tests/unit/test_malice.py. The clock is the parent's matter. Not covered: what of the kernel can be
reached by the few system calls that are left, and the time and power that a processor's caches
tell of.
"""

from __future__ import annotations

import json
import math
import os
import random
import resource
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from worker.pipeline import kernel, landlock, seccomp
from worker.pipeline.limits import MESSAGE_BYTES, PAGES_PER_CHILD, Limits

FONTS = tuple(
    Path("/usr") / folder
    for folder in (
        "share/fonts",
        "share/X11/fonts/Type1",
        "share/X11/fonts/TTF",
        "local/share/fonts",
    )
)
"""Where pdfium looks for a font that a document has not embedded; all that a child may read."""

_OWN_UIDS = range(60_578, 61_184)  # systemd's list of uids has them as unused
_OPEN_FILES = 16
_MOST_THREADS = 64


@dataclass(frozen=True)
class Layer:
    """Whether a layer holds, and what it closes or why it is missing."""

    active: bool
    detail: str


@dataclass(frozen=True)
class Task:
    """What a child is to do, as far as that says what it needs."""

    limits: Limits
    document_bytes: int
    threads: bool  # HEIC's decoder aborts where it gets none


class Confinement:
    """The layers that this host allows, for children that are forked from this process."""

    def __init__(self, missing: Mapping[str, str] | None = None) -> None:
        """Try all layers but those `missing`, and move this process out of the host's network."""
        self.missing = dict(missing or {})
        self._rules = -1
        self._filters: dict[tuple[bool, bool], bytes] = {}
        self._fonts = any(folder.is_dir() for folder in FONTS)
        if "namespaces" not in self.missing:
            with self._noting("namespaces"):
                _leave_network()
        with self._noting("landlock"):
            self._rules = landlock.ruleset(FONTS)
        with self._noting("seccomp"):
            self._filters = _filters()
        self._try_all()

    @property
    def descriptors(self) -> list[int]:
        """What a child must not close before it is confined."""
        return [self._rules] if self._rules >= 0 else []

    def fork(self) -> int:
        """A child in a process namespace of its own, where that is allowed."""
        return kernel.fork(0 if "namespaces" in self.missing else kernel.CLONE_NEWPID)

    def put_on(self, task: Task) -> None:
        """Give up for good what `task` does not need; raises OSError where that is refused."""
        for name, (_, put_on) in LAYERS.items():
            if put_on is not None and name not in self.missing:
                put_on(self, task)

    def report(self) -> dict[str, Layer]:
        """All layers by name."""
        return {
            name: Layer(active=name not in self.missing, detail=self.missing.get(name, closes))
            for name, (closes, _) in LAYERS.items()
        }

    def restrict_paths(self) -> None:
        """Landlock's part of a child."""
        landlock.restrict(self._rules)
        os.close(self._rules)

    def filter_calls(self, *, threads: bool) -> None:
        """Seccomp's part of a child: files only where Landlock says which."""
        may_open = self._fonts and "landlock" not in self.missing
        seccomp.install(self._filters[threads, may_open])

    @contextmanager
    def _noting(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.missing[name] = error.strerror or str(error)

    def _try_all(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            pid = self._fork_anyhow()
            if pid == 0:
                self._try_and_tell(theirs)
            theirs.close()
            told = ours.recv(MESSAGE_BYTES)
        os.waitpid(pid, 0)
        if not told:
            raise OSError("a process that tries the layers dies")
        self.missing |= json.loads(told)

    def _fork_anyhow(self) -> int:
        with self._noting("namespaces"):
            return self.fork()
        return self.fork()

    def _try_and_tell(self, parent: socket.socket) -> NoReturn:
        try:
            for name, (_, put_on) in LAYERS.items():
                if put_on is not None and name not in self.missing:
                    with self._noting(name):
                        put_on(self, _ANY_TASK)
            parent.send(json.dumps(self.missing).encode())
        finally:
            os._exit(0)


def end_with_parent() -> None:
    """Let the kernel kill this process when the thread ends that made it."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def _leave_network() -> None:
    """Move to a network that nothing is in, and to an IPC namespace; a user may in a user's own."""
    own = kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC
    kernel.unshare(own if os.geteuid() == 0 else own | kernel.CLONE_NEWUSER)
    end_with_parent()  # a change of identity undoes it


def _filters() -> dict[tuple[bool, bool], bytes]:
    return {
        (threads, fonts): seccomp.program(kernel.MACHINE, threads=threads, fonts=fonts)
        for threads in (False, True)
        for fonts in (False, True)
    }


# What a child does; the order counts


def _limit_resources(confinement: Confinement, task: Task) -> None:
    limits = task.limits
    _limit(resource.RLIMIT_AS, limits.memory_bytes + task.document_bytes)
    # For all pages; the child gives each its part
    _limit(resource.RLIMIT_CPU, math.ceil(limits.page_seconds) * (PAGES_PER_CHILD + 2))
    _limit(resource.RLIMIT_FSIZE, 0)  # not of the pixels: they are mapped
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    for what in (resource.RLIMIT_CORE, resource.RLIMIT_MEMLOCK, resource.RLIMIT_MSGQUEUE):
        _limit(what, 0)
    if not task.threads:
        _limit(resource.RLIMIT_NPROC, 0)
    elif os.geteuid() == 0 or "namespaces" not in confinement.missing:
        _limit(resource.RLIMIT_NPROC, _MOST_THREADS)  # counted by uid and namespace
    kernel.exit_on(signal.SIGXCPU)


def _limit(what: int, most: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)  # who runs us may allow less
    resource.setrlimit(what, (most, most))


def _take_own_uid(_: Confinement, __: Task) -> None:
    """Become somebody who owns nothing, and whom RLIMIT_NPROC binds.

    Not `nobody`, whom others run as; and seldom the same one as another child of now.
    """
    if os.geteuid() != 0:
        raise OSError("the worker is not root, so its children share its uid")
    uid = random.choice(_OWN_UIDS)  # noqa: S311 (no secret)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _drop_capabilities(_: Confinement, __: Task) -> None:
    kernel.drop_capabilities()


def _gain_nothing(_: Confinement, __: Task) -> None:
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)


def _hide(_: Confinement, __: Task) -> None:
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)


def _end_with_zygote(_: Confinement, __: Task) -> None:
    end_with_parent()


def _restrict_paths(confinement: Confinement, _: Task) -> None:
    confinement.restrict_paths()


def _filter_calls(confinement: Confinement, task: Task) -> None:
    confinement.filter_calls(threads=task.threads)


PutOn = Callable[[Confinement, Task], None]

LAYERS: dict[str, tuple[str, PutOn | None]] = {
    "namespaces": ("the host's network, processes and shared memory", None),  # where it is forked
    "rlimits": ("memory, CPU time, writing, new processes", _limit_resources),
    "uid": ("files and processes of all other users", _take_own_uid),
    # After the identity, whose change would undo two of them
    "capabilities": ("what root may do", _drop_capabilities),
    "no_new_privs": ("programs that give privileges", _gain_nothing),
    "not_dumpable": ("its memory, to others of its uid", _hide),
    "death_signal": ("a life after its worker", _end_with_zygote),
    "landlock": ("all paths but fonts, TCP, signals, abstract sockets", _restrict_paths),
    "seccomp": ("all system calls but some forty, and new code", _filter_calls),
}
"""Each layer: what it closes, and how a child puts it on."""

_ANY_TASK = Task(
    Limits(
        max_pages=1,
        max_page_pixels=1,
        max_side_pixels=1,
        min_side_pixels=1,
        max_side_ratio=1,
        render_dpi=1,
        memory_bytes=1024**3,
        page_seconds=10,
    ),
    document_bytes=0,
    threads=False,
)
