"""An engine around anything that finds lines of text in an image: `paddle` and `rapid`.

It adds what such detectors leave out: pages that lie on their side or on their head, an order of
reading, tables, and how sure one may be of it all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from shared.document import Block, BlockKind, Box, Recognition, Usage
from shared.errors import PageUnreadable
from worker.engine import golden, lines
from worker.engine.images import PageImage, Rotation
from worker.engine.lines import Line
from worker.engine.protocol import Done, Event, Failed, Read, Working

SURE = 0.8  # upright text is read with 0.97 and more, on its head with 0.46 to 0.74 (measured)
TALL = 1.5  # a line this much higher than wide was turned by the recogniser, if it has
TALL_LETTERS = 4  # this many letters: a single one is no sign

FindLines = Callable[[PageImage], list[Line]]


@dataclass(frozen=True)
class Attempt:
    """What was found on a page that was turned clockwise by `rotation`."""

    rotation: Rotation
    lines: list[Line]

    @property
    def letters(self) -> int:
        """How many there are."""
        return sum(len(line.text) for line in self.lines)

    @property
    def confidence(self) -> float | None:
        """The mean over the letters; None where there is none."""
        if not self.letters:
            return None
        return sum(len(line.text) * line.confidence for line in self.lines) / self.letters

    @property
    def lies(self) -> bool:
        """Whether most letters stand in lines that run down the page.

        Recognisers turn a tall box before they read it, so one of the two sideways directions is
        read well by itself; only the order of its lines is lost.
        """
        tall = [
            line
            for line in self.lines
            if line.height >= TALL * line.width and len(line.text) >= TALL_LETTERS
        ]
        return 2 * sum(len(line.text) for line in tall) > self.letters

    @property
    def is_sure(self) -> bool:
        """Whether the letters were read as well as letters that stand upright."""
        return self.confidence is None or self.confidence >= SURE

    @property
    def is_upright(self) -> bool:
        """Whether no other rotation needs to be tried; so is a page without text."""
        return self.is_sure and not self.lies

    @property
    def worth(self) -> float:
        """For comparing attempts: letters that are read surely, and half where they lie."""
        sure = sum(len(line.text) * (line.confidence - 0.5) for line in self.lines)
        return sure / 2 if self.lies else sure


@dataclass
class _Page:
    request: Read
    image: PageImage
    attempts: list[Attempt] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best(self) -> Attempt:
        return max(self.attempts, key=lambda attempt: attempt.worth)


def next_rotation(attempts: list[Attempt]) -> Rotation | None:
    """Which way to turn the page next; None where it stands upright, or all ways were tried."""
    if any(attempt.is_upright for attempt in attempts):
        return None
    order: tuple[Rotation, ...] = (0, 180, 90, 270)
    if attempts and attempts[0].lies:
        order = (0, 270, 90, 180) if attempts[0].is_sure else (0, 90, 270, 180)
    tried = {attempt.rotation for attempt in attempts}
    return next((rotation for rotation in order if rotation not in tried), None)


class LineEngine:
    """Reads one page at a time, one rotation of it a step; a second page waits its turn."""

    slots = 2
    golden_text = golden.SENTENCE

    def __init__(self, *, name: str, model: str, find_lines: FindLines) -> None:
        """`find_lines` gives them in any order; it may raise PageUnreadable."""
        self.name = name
        self.model = model
        self.device = {"device": "cpu", "threads": "1"}
        self._find_lines = find_lines
        self._held: dict[int, _Page] = {}

    @property
    def busy(self) -> bool:
        """Whether it holds a page."""
        return bool(self._held)

    def submit(self, request: Read) -> None:
        """Hold a page."""
        self._held[request.id] = _Page(request, PageImage(request.image))

    def tell(self, page_id: int) -> None:
        """Nothing: the lines of a page are found all at once."""

    def cancel(self, page_id: int) -> None:
        """Hold the page no longer."""
        self._held.pop(page_id, None)

    def step(self) -> Iterator[Event]:
        """Read the oldest page in one rotation."""
        page = next(iter(self._held.values()))
        yield Working((page.request.id,))
        try:
            self._try(page)
        except PageUnreadable as error:
            self.cancel(page.request.id)
            yield Failed(page.request.id, error.code, error.detail)
        else:
            if next_rotation(page.attempts) is None:
                self.cancel(page.request.id)
                yield Done.of(page.request, self._recognition(page))

    def _try(self, page: _Page) -> None:
        begun = time.monotonic()
        rotation = next_rotation(page.attempts)
        assert rotation is not None, "a page with an answer is not held"
        turned = page.image.turned(rotation)
        found = [line for line in self._find_lines(turned) if line.text.strip()]
        page.attempts.append(Attempt(rotation, found))
        page.seconds += time.monotonic() - begun

    def _recognition(self, page: _Page) -> Recognition:
        best = page.best
        regions = lines.arrange(best.lines)
        return Recognition(
            engine=self.name,
            model=self.model,
            markdown=lines.markdown_of(regions),
            text=lines.text_of(regions),
            blocks=[
                block(line, best.rotation, page.image.size)
                for region in regions
                for row in region
                for line in row
            ],
            confidence=best.confidence,
            confidence_min=min((line.confidence for line in best.lines), default=None),
            rotation=best.rotation,
            usage=Usage(engine_seconds=round(page.seconds, 3)),
        )


def block(line: Line, rotation: Rotation, size: tuple[int, int]) -> Block:
    """The line as a block of the page as it was given, `size` pixels, not as it was turned."""
    width, height = size
    x0, y0, x1, y1 = line.x0, line.y0, line.x1, line.y1
    match rotation:
        case 90:
            x0, y0, x1, y1 = y0, height - x1, y1, height - x0
        case 180:
            x0, y0, x1, y1 = width - x1, height - y1, width - x0, height - y0
        case 270:
            x0, y0, x1, y1 = width - y1, x0, width - y0, x1
    box = Box(
        x0=min(max(x0, 0), width),
        y0=min(max(y0, 0), height),
        x1=min(max(x1, 0), width),
        y1=min(max(y1, 0), height),
    )
    return Block(kind=BlockKind.LINE, text=line.text, box=box, confidence=line.confidence)
