"""Documents and answers that are broken at random: each ends with an outcome that has a name.

`make fuzz CASES=100000 FIRST=0` tries as many; a case that fails is its number, and
`make fuzz CASES=1 FIRST=number` tries it again.
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from shared.errors import DependencyUnavailable, InternalError, OctavoError
from tests import documents, mutations
from tests.unit.test_render import LIMITS as DEFAULT_LIMITS
from worker.pipeline import sandbox
from worker.pipeline.nursery import Zygote
from worker.pipeline.render import open_document
from worker.pipeline.sandbox import Child, ChildLost

CASES = int(os.environ.get("OCTAVO_FUZZ_CASES", "2000"))
FIRST = int(os.environ.get("OCTAVO_FUZZ_FIRST", "0"))
LIMITS = replace(DEFAULT_LIMITS, max_pages=50, max_page_pixels=4_000_000, page_seconds=3)
LIMITS = replace(LIMITS, render_dpi=36)
THREADS = 2
PAGES = 2


def outcome(number: int) -> str:
    """What becomes of a case; what has no name is raised."""
    _, media_type, broken = mutations.case(number)
    began = time.monotonic()
    try:
        with documents.file_of(broken) as file:
            document = open_document(file, media_type, limits=LIMITS)
        with document:
            for index in range(min(document.pages_total, PAGES)):
                document.render(index)
    except (InternalError, DependencyUnavailable):
        raise
    except OctavoError as error:
        ended = error.code
    else:
        ended = "read"
    assert time.monotonic() - began < (PAGES + 1) * LIMITS.answer_seconds + 1
    return ended


def attempt(number: int) -> str:
    try:
        return outcome(number)
    except Exception as error:  # noqa: BLE001 (it is what the test looks for)
        name = mutations.case(number)[0]
        return f"case {number} ({name}): {type(error).__name__}: {error}"


def test_a_case_can_be_made_again() -> None:
    assert [mutations.case(n) for n in range(50)] == [mutations.case(n) for n in range(50)]
    assert len({mutations.case(n)[2] for n in range(50)}) == 50


@pytest.mark.timeout(0 if CASES > 2_000 else 600)
def test_any_broken_document_ends_with_an_outcome_that_has_a_name() -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        told = Counter(threads.map(attempt, range(FIRST, FIRST + CASES)))

    nameless = [said for said in told if said.startswith("case")]
    assert nameless == []
    assert CASES < 1_000 or (told["read"] > CASES / 20 and told["document_invalid"] > CASES / 20)


# The parent's side


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@pytest.fixture(scope="module")
def ended_process() -> Iterator[int]:
    """A pidfd that may be killed as often as one likes."""
    process = subprocess.Popen(["true"])
    descriptor = os.pidfd_open(process.pid)
    process.wait()
    yield descriptor
    os.close(descriptor)


ANSWERS: list[dict[str, Any]] = [
    {"width": 300, "height": 300},
    {"pages": 3},
    {"error": "document_invalid", "detail": "it is broken"},
]
VALUES: list[Any] = [
    0, 1, -1, 16, 300, 2_000, 2**31 - 1, 2**31, 2**63, 10**400, 1.5, 1e308, True, None, "", "300",
    "document_too_expensive", "unauthenticated", "\x1b[2J\u202e\x00", "\ud800", "x" * 9_000, [], {},
    [[[[]]]], {"pages": 1},
]  # fmt: skip
KEYS = ["width", "height", "pages", "error", "detail", "stride", "", "__class__", "retryable"]


def answer(chance: random.Random) -> bytes:
    """What a child might say: nearly right, or nothing of the sort."""
    words = dict(chance.choice(ANSWERS))
    for _ in range(chance.randrange(4)):
        words[chance.choice([*list(words) * 8, *KEYS])] = chance.choice(VALUES)
    if chance.random() < 0.1:
        words.pop(chance.choice(list(words)))
    message = bytearray(json.dumps(words).encode())
    for _ in range(chance.choice([0, 0, 0, 1, 4])):
        chance.choice([mutations.flip, mutations.noise, mutations.cut, mutations.repeat])(
            message, chance
        )
        message = message or bytearray(b"?")
    return bytes(message[:60_000])


@pytest.mark.parametrize("question", ["open", "render"])
def test_any_answer_of_a_child_is_one_that_may_be_or_ends_it(
    question: str, zygote: Zygote, ended_process: int
) -> None:
    for number in range(FIRST, FIRST + CASES):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pixels = sandbox.sealed_memory(500 * 500 * 3)
        process = os.dup(ended_process)
        child = Child(ours, process=process, pixels=pixels, limits=LIMITS, zygote=zygote)
        with theirs, closing(child):
            theirs.send(answer(random.Random(number)))  # noqa: S311 (no secret)
            try:
                assert may_be(child, question), f"case {number}"
            except ChildLost:
                pass
            except Exception as error:
                error.add_note(f"case {number}")
                raise


def may_be(child: Child, question: str) -> bool:
    """Whether what the parent took for an answer is one that could be true."""
    try:
        if question == "open":
            child.open(None)
            return 0 <= child.pages_total < 2**31
        image = child.render(0)
        return image.width * image.height <= 500 * 500
    except OctavoError as error:
        json.dumps(error.facts()).encode()
        told = error.detail
        return told == error.title() or (len(told) <= 300 and told.isprintable())
