"""The documents of a seed: small, each page of a size of its own, some with a page that harms.

The same seed gives the same documents, so that a run can be had again. What a page looks like says
which page it is: the fake engine answers with the size it saw, and so a page that was read for
another is found out.
"""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from PIL import Image

from worker.engine.faults import Fault, mark

LARGEST = 12
"""Pages of the longest document."""

DPI = 150
"""At which the platform renders: a PDF's page comes out at the size that it was made with."""

DEADLY = (Fault.SEGFAULT, Fault.KILLED, Fault.DEVICE_ERROR, Fault.HANG)
HARMFUL = (Fault.UNREADABLE, *DEADLY)
"""Pages that cannot be read; the others of their document can."""
ODD = (Fault.GARBAGE, Fault.DOUBLE_ANSWER, Fault.WRONG_ANSWER, Fault.ENDLESS)
"""Pages at which the engine misbehaves, and that are read all the same."""

PDFS, BATCH = 0.4, 0.2
"""Shares of documents; the others are images, and urgent."""
SHARES = (965, 4, 16, 15)
"""Of documents: all pages good, one deadly, one unreadable, one odd."""

FAULTS_OF_ENGINE = ",".join((*HARMFUL, *ODD))
"""What the fake engine has to be told, so that it looks for marks."""


class Fate(StrEnum):
    """What its submitter does with a job later."""

    KEPT = "kept"
    CANCELLED = "cancelled"
    DELETED = "deleted"


@dataclass(frozen=True)
class Submission:
    """One logical submission: sent until it is acknowledged, and then meant once."""

    number: int
    key: str
    faults: tuple[Fault | None, ...]  # of each page
    is_pdf: bool
    fate: Fate
    patience_seconds: float  # from the acknowledgement to the fate
    is_batch: bool

    @property
    def pages(self) -> int:
        """How many pages the document has."""
        return len(self.faults)

    @property
    def harmful(self) -> frozenset[int]:
        """The numbers of the pages that cannot be read."""
        return frozenset(n for n, fault in enumerate(self.faults, 1) if fault in HARMFUL)

    def size(self, page_no: int) -> tuple[int, int]:
        """Width and height of a page in pixels, as the engine sees it; whole points in a PDF."""
        return 200 + 25 * page_no, 150 + 25 * (self.number % 6)

    def document(self) -> bytes:
        """The file: an image, a TIFF, or a PDF of images."""
        images = [self._page(page_no) for page_no in range(1, self.pages + 1)]
        written = io.BytesIO()
        if self.is_pdf:
            images[0].save(
                written, "PDF", save_all=True, append_images=images[1:], resolution=DPI, quality=90
            )
        elif len(images) == 1:
            images[0].save(written, "PNG")
        else:
            images[0].save(
                written,
                "TIFF",
                save_all=True,
                append_images=images[1:],
                compression="tiff_adobe_deflate",
            )
        return written.getvalue()

    def _page(self, page_no: int) -> Image.Image:
        image = Image.new("RGB", self.size(page_no), "white")
        if fault := self.faults[page_no - 1]:
            mark(image, fault)
        return image


def submissions(seed: int, jobs: int, *, deadly: int | None = None) -> Iterator[Submission]:
    """The submissions of a seed, in order; a page costs a millisecond once it is asked for.

    Only the first `deadly` of them may have a page that kills its engine.
    """
    chance = random.Random(seed)
    for number in range(1, jobs + 1):
        yield Submission(
            number=number,
            key=f"chaos-{seed}-{number}",
            faults=_faults(chance, may_be_deadly=deadly is None or number <= deadly),
            is_pdf=chance.random() < PDFS,
            fate=chance.choices(list(Fate), weights=(92, 5, 3))[0],
            patience_seconds=chance.uniform(0, 4),
            is_batch=chance.random() < BATCH,
        )


def _faults(chance: random.Random, *, may_be_deadly: bool) -> tuple[Fault | None, ...]:
    """1 to 12 pages, mostly few; about every thirtieth document has one page that is not good."""
    pages = min(chance.randint(1, LARGEST), chance.randint(1, LARGEST))
    faults: list[Fault | None] = [None] * pages
    kinds = (None, DEADLY, (Fault.UNREADABLE,), ODD)
    [chosen] = chance.choices(kinds, weights=SHARES)
    if chosen:
        page, fault = chance.randrange(pages), chance.choice(chosen)
        faults[page] = fault if may_be_deadly or fault not in DEADLY else None
    return tuple(faults)
