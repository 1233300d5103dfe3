"""The filter of system calls, read as the kernel reads it: also for machines that this is not."""

from __future__ import annotations

import errno
import mmap
import os
import re
import struct
from pathlib import Path

import pytest

from worker.pipeline.seccomp import ARCHITECTURES, program

ALLOW, DENY, KILL = "allow", "EPERM", "kill"
MEANING = {
    0x7FFF_0000: ALLOW,
    0x0005_0000 | errno.EPERM: DENY,
    0x0005_0000 | errno.ENOSYS: "ENOSYS",
    0x8000_0000: KILL,
}
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}

THREAD = 0x3D0F00  # what glibc's pthread_create asks for
FORK = 0x01200011  # what glibc's fork does
VFORK = 0x4111

READ_ONLY, READ_WRITE = mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE
CODE = mmap.PROT_READ | mmap.PROT_EXEC

# What is asked for with arguments, and what comes of it: name, arguments, threads, fonts
CALLS = [
    (ALLOW, "mmap", (0, 4096, READ_WRITE), False, False),
    (DENY, "mmap", (0, 4096, CODE), False, False),
    (DENY, "mprotect", (4096, 4096, CODE), False, False),
    (ALLOW, "mprotect", (4096, 4096, READ_ONLY), False, False),
    (DENY, "clone", (THREAD,), False, False),
    (ALLOW, "clone", (THREAD,), True, False),
    (DENY, "clone", (FORK,), True, False),
    (DENY, "clone", (VFORK,), True, False),
    (DENY, "clone", (THREAD | 0x1000_0000,), True, False),  # and a user namespace
    ("ENOSYS", "clone3", (), True, False),
    ("ENOSYS", "clone3", (), False, False),
    (DENY, "openat", (0, 0, os.O_RDONLY), False, False),
    (ALLOW, "openat", (0, 0, os.O_RDONLY | os.O_CLOEXEC), False, True),
    (DENY, "openat", (0, 0, os.O_WRONLY), False, True),
    (DENY, "openat", (0, 0, os.O_RDWR | os.O_CREAT), False, True),
    (DENY, "openat", (0, 0, os.O_PATH), False, True),
    (DENY, "read", (), False, False),
    (ALLOW, "prlimit64", (0, 7), False, False),
    (DENY, "prlimit64", (1, 7), False, False),
    (ALLOW, "fcntl", (3, 1030), False, False),
    (DENY, "fcntl", (3, 4), False, False),
    (ALLOW, "sendto", (), False, False),
    (ALLOW, "exit_group", (), False, False),
]


def answer(code: bytes, machine: str, number: int, *arguments: int) -> str:
    """What the filter answers to a call: an interpreter of the instructions that it has."""
    audit = ARCHITECTURES[machine].audit if machine in ARCHITECTURES else 0x4000_0003  # i386
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, audit, 0, *padded)
    held, place = 0, 0
    while True:
        kind, if_true, if_not, value = struct.unpack_from("=HBBI", code, 8 * place)
        place += 1
        match kind:
            case 0x20:
                held = struct.unpack_from("<I", data, value)[0]
            case 0x15:
                place += if_true if held == value else if_not
            case 0x45:
                place += if_true if held & value else if_not
            case 0x06:
                return MEANING[value]
            case _:
                raise AssertionError(kind)


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize("call", CALLS, ids=range(len(CALLS)))
def test_a_call_is_answered_by_its_arguments(
    machine: str, call: tuple[str, str, tuple[int, ...], bool, bool]
) -> None:
    expected, name, arguments, threads, fonts = call
    code = program(machine, threads=threads, fonts=fonts)

    number = ARCHITECTURES[machine].numbers[name]

    assert answer(code, machine, number, *arguments) == expected


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_call_that_is_not_listed_is_refused(machine: str) -> None:
    code = program(machine, threads=True, fonts=True)
    listed = set(ARCHITECTURES[machine].numbers.values())

    told = {answer(code, machine, n) for n in range(1_024) if n not in listed}

    assert told == {DENY}
    assert answer(code, machine, 0x4000_0000) == DENY  # x32


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_a_call_of_another_architecture_ends_the_child(machine: str) -> None:
    code = program(machine, threads=True, fonts=True)

    assert answer(code, "i386", ARCHITECTURES[machine].numbers["exit_group"]) == KILL


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_numbers_are_those_of_the_kernels_headers(machine: str) -> None:
    if not HEADERS[machine].exists():
        pytest.skip("the headers are not here")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[machine].read_text())
    numbers = {name: int(number) for name, number in found}

    for name, number in ARCHITECTURES[machine].numbers.items():
        assert numbers[name] == number, name


def test_a_machine_without_a_filter_is_told_so() -> None:
    with pytest.raises(OSError, match="riscv64"):
        program("riscv64", threads=False, fonts=False)
