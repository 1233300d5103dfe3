"""The engine: pages are prepared, admitted, read side by side, and leave one by one.

A step takes in pages that are prepared, begins a few that wait and have room, and puts out some
tokens of all that are running; so a page joins or leaves the batch between any two steps. Beside a
card the host is a step behind: it looks at what came of the last while the device does the next.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from shared.document import FinishReason
from shared.errors import InternalError, InvalidOptions, OctavoError
from worker.engine.deepseek import encoder, prompts, recognised, views
from worker.engine.deepseek.batch import Batch, Look
from worker.engine.deepseek.intake import Crew, Here, Intake
from worker.engine.deepseek.loops import LoopWatch
from worker.engine.deepseek.network import Network
from worker.engine.deepseek.prompts import Use
from worker.engine.deepseek.recognised import Output
from worker.engine.deepseek.scheduler import Scheduler, Sequence
from worker.engine.deepseek.streaming import TextStream
from worker.engine.deepseek.tokens import END, Tokenizer
from worker.engine.deepseek.views import MODES, Mode, Views
from worker.engine.protocol import Delta, Done, Event, Failed, Read, Working

AUTO = "auto"
IDLE_SECONDS = 0.05  # that a step with nothing else to do waits for a page to be prepared
GATHER_SECONDS = 0.1  # that pages wait for each other, to be begun together
GATHER_ROWS_SECONDS = 1.0  # and that rows do, of which there are fewer than pages that wait


@dataclass(frozen=True)
class Sizes:
    """How much the engine takes on. Derived from the machine, see `machine.py`."""

    rows: int  # pages that are read side by side
    blocks: int  # of the cache
    intake: int  # pages that are begun at once
    burst: int  # tokens of each page between two looks at them
    ahead: int = 0  # pages that are prepared before there is a row for them
    preparers: int = 0  # processes that prepare pages; 0: the engine's own does
    is_behind: bool = False  # whether the host looks at a burst while the next one is under way


@dataclass
class _Newcomer:
    """A page that was not looked at yet."""

    request: Read
    is_told: bool = False


@dataclass
class _Page:
    """A page that is held, from its request to its answer."""

    request: Read
    use: Use
    modes: Mapping[str, Mode]  # one, or those to choose from
    stream: TextStream
    is_told: bool
    loops: LoopWatch = field(default_factory=LoopWatch)
    views: Views | None = None  # once it is prepared, until it is begun
    size: tuple[int, int] = (0, 0)
    mode: str | None = None  # that it was cut by
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
        self.slots = sizes.rows + max(sizes.ahead, min(sizes.rows, 64))  # some wait here
        self._network = network
        self._tokenizer = tokenizer
        self._sizes = sizes
        self._output_tokens = output_tokens
        self._scheduler = Scheduler(rows=sizes.rows, blocks=sizes.blocks)
        self._batch = Batch(network, rows=sizes.rows, blocks=sizes.blocks)
        self._intake: Intake = Crew(sizes.preparers) if sizes.preparers else Here()
        self._held: dict[int, _Page] = {}
        self._new: dict[int, _Newcomer] = {}
        self._look: Look | None = None  # at the burst that is under way
        self._gathering_since: float | None = None

    @property
    def busy(self) -> bool:
        """Whether it holds a page."""
        return bool(self._held or self._new)

    @property
    def rows_in_use(self) -> int:
        """How many pages are being read side by side."""
        return len(self._scheduler.running)

    @property
    def free_blocks(self) -> int:
        """How much of the cache is nobody's."""
        return self._scheduler.pool.free

    def submit(self, request: Read) -> None:
        """Hold a page."""
        self._new[request.id] = _Newcomer(request)

    def tell(self, page_id: int) -> None:
        """Yield the text of a page from the next burst on, beginning with what there is of it."""
        if page := self._held.get(page_id) or self._new.get(page_id):
            page.is_told = True

    def cancel(self, page_id: int) -> None:
        """Hold the page no longer; its row and its blocks are free at once."""
        self._new.pop(page_id, None)
        page = self._held.pop(page_id, None)
        if page is not None and page.sequence is None:
            self._intake.drop(page_id)
        self._scheduler.end(page_id)

    def close(self) -> None:
        """End the processes that prepare pages."""
        self._intake.close()

    def step(self) -> Iterator[Event]:
        """Take pages in, begin those that have room, and put out a burst of all that run."""
        yield from self._take_in()
        if beginners := self._admit():
            yield Working(tuple(beginners))
            yield from self._begin(list(beginners.values()))
        look = None
        if running := self._scheduler.running:
            yield Working(tuple(sequence.id for sequence in running))
            self._batch.go_on(running, self._sizes.burst)
            look = self._batch.look(running, self._sizes.burst + 1)  # with what `begin` put out
        if self._sizes.is_behind:
            look, self._look = self._look, look
        if look is not None:
            yield from self._see(look)

    # A page comes

    def _take_in(self) -> Iterator[Event]:
        # Not long before there is a row for it: a page's time is counted from its first touch.
        most = self._sizes.rows + self._sizes.ahead
        while self._new and self._intake.room and len(self._held) < most:
            newcomer = self._new.pop(next(iter(self._new)))
            request = newcomer.request
            yield Working((request.id,))
            try:
                page = self._opened(newcomer)
            except OctavoError as error:
                yield Failed(request.id, error.code, error.detail)
            else:
                self._held[request.id] = page
                self._intake.put(request.id, request.image, page.modes)
        for page_id, found in self._intake.take(0 if self._scheduler.running else IDLE_SECONDS):
            yield from self._prepared(self._held[page_id], found)

    def _opened(self, newcomer: _Newcomer) -> _Page:
        """The page with what it is read for. Raises InvalidOptions."""
        request = newcomer.request
        use = prompts.use_of(request.options)
        return _Page(
            request,
            use,
            self._modes(request.options.mode),
            TextStream(self._tokenizer, use),
            is_told=newcomer.is_told,
            touched_at=time.monotonic(),
        )

    def _modes(self, name: str | None) -> Mapping[str, Mode]:
        modes = MODES[self._network.config.version]
        if name == AUTO:
            return modes
        name = name or views.DEFAULT_MODE
        if name not in modes:
            known = ", ".join((AUTO, *modes))
            raise InvalidOptions(f"mode: {self.name} has no {name}; there are {known}")
        return {name: modes[name]}

    def _prepared(self, page: _Page, found: Views | OctavoError) -> Iterator[Event]:
        """Let a page wait for its admission, or end it."""
        try:
            if isinstance(found, OctavoError):
                raise found
            self._wait(page, found)
        except OctavoError as error:
            del self._held[page.request.id]
            yield Failed(page.request.id, error.code, error.detail)

    def _wait(self, page: _Page, cut: Views) -> None:
        """Raises InvalidOptions where its prompt has no room."""
        page.views, page.size, page.mode = cut, cut.size, views.name_of(cut.mode, page.modes)
        page.vision_tokens = views.tokens(self._network.config.version, cut.mode, cut.grid)
        words = page.request.options.prompt or ""
        page.prompt = prompts.ids(self._tokenizer, page.use, images=page.vision_tokens, words=words)
        page.sequence = self._sequence(page.request, len(page.prompt))
        self._scheduler.submit(page.sequence)

    def _sequence(self, request: Read, prompt_tokens: int) -> Sequence:
        most = self._network.config.language.max_position_embeddings
        room = min(most, self._scheduler.most_tokens) - prompt_tokens
        if room <= 0:
            raise InvalidOptions(f"prompt: it has {-room + 1} tokens too many")
        wanted = request.options.max_output_tokens or self._output_tokens
        return Sequence(request.id, prompt_tokens, max(1, min(wanted, room)))

    def _admit(self) -> dict[int, _Page]:
        if not self._is_worth_beginning():
            return {}
        self._gathering_since = None
        admitted = self._scheduler.admit(self._sizes.intake)
        return {sequence.id: self._held[sequence.id] for sequence in admitted}

    def _is_worth_beginning(self) -> bool:
        """Several pages are begun in little more time than one, and meanwhile the others wait."""
        waiting, now = self._scheduler.waiting, time.monotonic()
        ready = min(waiting, self._scheduler.free_rows)
        if not ready:
            self._gathering_since = None
            return False
        if self._gathering_since is None:
            self._gathering_since = now
        others = len(self._new) + len(self._held) - waiting - len(self._scheduler.running)
        is_all = ready == waiting and not others
        patience = GATHER_SECONDS if ready == waiting else GATHER_ROWS_SECONDS
        return ready >= self._sizes.intake or is_all or now - self._gathering_since >= patience

    def _begin(self, pages: list[_Page]) -> Iterator[Event]:
        """Begin pages together; where memory does not suffice, fewer, down to each by itself."""
        if self._fit(pages):
            return
        gc.collect()
        torch.cuda.empty_cache()
        if len(pages) > 1:
            half = len(pages) // 2
            yield from self._begin(pages[:half])
            yield from self._begin(pages[half:])
            return
        page_id = pages[0].request.id
        self.cancel(page_id)
        yield Failed(page_id, InternalError.code, "The device has no memory for this page.")

    def _fit(self, pages: list[_Page]) -> bool:
        """Begin pages together, if there is memory for that."""
        try:
            seen = encoder.features(self._network, [page.views for page in pages if page.views])
            sequences = [page.sequence for page in pages if page.sequence]
            self._batch.begin(sequences, [page.prompt for page in pages], seen)
        except torch.OutOfMemoryError:
            return False
        for page in pages:
            page.views = None  # ten megabytes of pixels
        return True

    # A page goes

    def _see(self, look: Look) -> Iterator[Event]:
        """Say what came of a burst, of the pages that are still held."""
        running = [sequence for sequence in look.pages if sequence.row is not None]
        before = [len(sequence.output) for sequence in running]
        ended = {sequence.id for sequence in look.read()}
        for sequence, seen in zip(running, before, strict=True):
            page, news = self._held[sequence.id], sequence.output[seen:]
            loops = page.loops.see(news)
            if page.is_told and (text := page.stream.more(sequence.output)):
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
            mode=page.mode,
            vision_tokens=page.vision_tokens,
            seconds=time.monotonic() - page.touched_at,
        )
