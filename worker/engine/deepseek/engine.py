"""The engine: pages are prepared, admitted, read side by side, and leave one by one.

A step prepares a page, begins a few that wait and have room, and puts out some tokens of all that
are running; so a page joins or leaves the batch between any two steps.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from shared.document import FinishReason
from shared.errors import InvalidOptions, OctavoError
from worker.engine import images
from worker.engine.deepseek import encoder, prompts, recognised, views
from worker.engine.deepseek.batch import Batch
from worker.engine.deepseek.loops import LoopWatch
from worker.engine.deepseek.network import Network
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.recognised import Output
from worker.engine.deepseek.scheduler import Scheduler, Sequence
from worker.engine.deepseek.streaming import TextStream
from worker.engine.deepseek.tokens import END, Tokenizer
from worker.engine.deepseek.views import MODES, Mode, Views
from worker.engine.protocol import Delta, Done, Event, Failed, Read, Working


@dataclass(frozen=True)
class Sizes:
    """How much the engine takes on. Derived from the machine, see `machine.py`."""

    rows: int  # pages that are read side by side
    blocks: int  # of the cache
    intake: int  # pages that are begun at once
    burst: int  # tokens of each page between two looks at them


@dataclass
class _Page:
    """A page that is held, from its request to its answer."""

    request: Read
    use: Use
    mode: Mode
    stream: TextStream
    loops: LoopWatch = field(default_factory=LoopWatch)
    views: Views | None = None  # once it is prepared, until it is begun
    size: tuple[int, int] = (0, 0)
    prompt: list[int] = field(default_factory=list)
    sequence: Sequence | None = None  # once it waits for admission
    vision_tokens: int = 0
    touched_at: float = 0.0


class DeepSeekEngine:
    """Reads many pages side by side with one network."""

    def __init__(
        self,
        *,
        name: str,
        model: str,
        network: Network,
        tokenizer: Tokenizer,
        sizes: Sizes,
        golden_text: str,
        output_tokens: int,
        device: dict[str, str],
    ) -> None:
        """`output_tokens` is the limit of a page that has none; its memory is reserved."""
        self.name = name
        self.model = model
        self.device = device
        self.golden_text = golden_text
        self.slots = 2 * sizes.rows  # as many wait here as are read
        self._network = network
        self._tokenizer = tokenizer
        self._sizes = sizes
        self._output_tokens = output_tokens
        self._scheduler = Scheduler(rows=sizes.rows, blocks=sizes.blocks)
        self._batch = Batch(network, rows=sizes.rows, blocks=sizes.blocks)
        self._held: dict[int, _Page] = {}
        self._new: dict[int, Read] = {}  # not looked at yet

    @property
    def busy(self) -> bool:
        """Whether it holds a page."""
        return bool(self._held or self._new)

    @property
    def free_blocks(self) -> int:
        """How much of the cache is nobody's."""
        return self._scheduler.pool.free

    def submit(self, request: Read) -> None:
        """Hold a page."""
        self._new[request.id] = request

    def cancel(self, page_id: int) -> None:
        """Hold the page no longer; its row and its blocks are free at once."""
        self._new.pop(page_id, None)
        self._held.pop(page_id, None)
        self._scheduler.end(page_id)

    def step(self) -> Iterator[Event]:
        """Prepare one page, begin those that have room, and put out a burst of all that run."""
        # Not before there is a row for it: a page's time is counted from its first touch.
        if self._new and len(self._held) < self._sizes.rows:
            request = next(iter(self._new.values()))
            yield Working((request.id,))
            yield from self._prepare(request)
        if beginners := self._admit():
            yield Working(tuple(beginners))
            self._begin(list(beginners.values()))
            yield from self._look(1)
        if running := self._scheduler.running:
            yield Working(tuple(sequence.id for sequence in running))
            self._batch.go_on(running, self._sizes.burst)
            yield from self._look(self._sizes.burst)

    # A page comes

    def _prepare(self, request: Read) -> Iterator[Event]:
        del self._new[request.id]
        try:
            page = self._opened(request)
        except OctavoError as error:
            yield Failed(request.id, error.code, error.detail)
            return
        self._held[request.id] = page
        assert page.sequence is not None
        self._scheduler.submit(page.sequence)

    def _opened(self, request: Read) -> _Page:
        """The page with its views and prompt. Raises InvalidOptions or PageUnreadable."""
        begun = time.monotonic()
        options, version = request.options, self._network.config.version
        use = prompts.use_of(options)
        page = _Page(request, use, self._mode(options.mode), TextStream(self._tokenizer, use))
        page.touched_at = begun
        page.views = views.of(images.decoded(request.image), page.mode)
        page.size = page.views.size
        page.vision_tokens = views.tokens(version, page.mode, page.views.grid)
        page.prompt = prompts.ids(
            self._tokenizer, use, images=page.vision_tokens, words=options.prompt or ""
        )
        page.sequence = self._sequence(request, len(page.prompt))
        return page

    def _mode(self, name: str | None) -> Mode:
        modes = MODES[self._network.config.version]
        found = modes.get(name or views.DEFAULT_MODE)
        if found is None:
            raise InvalidOptions(f"mode: {self.name} has no {name}; there are {', '.join(modes)}")
        return found

    def _sequence(self, request: Read, prompt_tokens: int) -> Sequence:
        most = self._network.config.language.max_position_embeddings
        room = min(most, self._scheduler.most_tokens) - prompt_tokens
        if room <= 0:
            raise InvalidOptions(f"prompt: it has {-room + 1} tokens too many")
        wanted = request.options.max_output_tokens or self._output_tokens
        return Sequence(request.id, prompt_tokens, max(1, min(wanted, room)))

    def _admit(self) -> dict[int, _Page]:
        admitted = self._scheduler.admit(self._sizes.intake)
        return {sequence.id: self._held[sequence.id] for sequence in admitted}

    def _begin(self, pages: list[_Page]) -> None:
        seen = encoder.features(self._network, [page.views for page in pages if page.views])
        sequences = [page.sequence for page in pages if page.sequence]
        self._batch.begin(sequences, [page.prompt for page in pages], seen)
        for page in pages:
            page.views = None  # ten megabytes of pixels

    # A page goes

    def _look(self, steps: int) -> Iterator[Event]:
        """Say what came of the last steps."""
        running = self._scheduler.running
        before = [len(sequence.output) for sequence in running]
        ended = {sequence.id for sequence in self._batch.read(running, steps)}
        for sequence, seen in zip(running, before, strict=True):
            page, news = self._held[sequence.id], sequence.output[seen:]
            loops = page.loops.see(news)
            if page.request.stream and (text := page.stream.more(news)):
                yield Delta(sequence.id, text)
            if loops or sequence.id in ended:
                yield self._done(page, sequence, loops=loops)

    def _done(self, page: _Page, sequence: Sequence, *, loops: bool) -> Done:
        self.cancel(sequence.id)
        output = self._output(page, sequence, loops=loops)
        recognition = recognised.recognition(
            output, self._tokenizer, engine=self.name, model=self.model
        )
        return Done.of(page.request, recognition)

    def _output(self, page: _Page, sequence: Sequence, *, loops: bool) -> Output:
        """Without the end token, and without what a loop only repeats."""
        is_whole = sequence.output[-1] == END and not loops
        surplus = page.loops.repeated if loops else int(is_whole)
        length = len(sequence.output) - surplus
        reason = FinishReason.STOP if is_whole else FinishReason.LENGTH
        return Output(
            ids=sequence.output[:length],
            log_probs=sequence.log_probs[:length],
            finish_reason=FinishReason.REPETITION if loops else reason,
            use=page.use,
            size=page.size,
            vision_tokens=page.vision_tokens,
            seconds=time.monotonic() - page.touched_at,
        )
