"""Every bomb ends with an outcome that has a name, in its time and in its memory."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import OctavoError
from shared.media import MediaType, sniff
from tests import bombs, documents
from tests.unit import test_render
from tests.unit.test_sandbox import as_root, only_child, opened
from worker.pipeline.render import open_document

LIMITS = replace(test_render.LIMITS, page_seconds=5)
SECONDS = 15
"""Of the clock: a child that has not answered is killed after 7, and a machine may be slow."""

PAGES = 3


def outcomes(document: bytes) -> list[str]:
    """What becomes of the document, or of each of its first pages, each within its time."""
    told = []
    media_type = sniff(document)
    assert media_type is not None
    with documents.file_of(document) as file:
        began = time.monotonic()
        try:
            source = open_document(file, media_type, limits=LIMITS)
        except OctavoError as error:
            assert time.monotonic() - began < SECONDS
            return [error.code]
    with source:
        for index in range(min(source.pages_total, PAGES)):
            began = time.monotonic()
            try:
                source.render(index)
                told.append(bombs.PAGE)
            except OctavoError as error:
                told.append(error.code)
            assert time.monotonic() - began < SECONDS
    return told


@pytest.mark.parametrize("bomb", bombs.BOMBS)
def test_a_bomb_ends_typed_and_in_time(bomb: str) -> None:
    make, expected = bombs.BOMBS[bomb]

    told = outcomes(make())

    assert told[0] in expected, told


@as_root
def test_a_child_gets_one_gibibyte_and_room_for_its_document() -> None:
    document = documents.pdf(1)
    with opened(document, limits=LIMITS):
        limits = Path(f"/proc/{only_child().pid}/limits").read_text()

    [most] = re.findall(r"Max address space +(\d+) ", limits)
    assert int(most) == 1024**3 + len(document)


def test_a_file_whose_chain_is_cut_says_what_it_has_lost() -> None:
    cut = bombs.tiff_of_directories(3, last=10**9)

    assert outcomes(cut) == [bombs.PAGE] * 3
    with documents.file_of(cut) as file:
        source = open_document(file, MediaType.TIFF, limits=LIMITS)
    with source:
        assert source.pages_total == 4
        with pytest.raises(OctavoError, match="ends before"):
            source.render(3)
