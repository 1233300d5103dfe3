"""Our network against transformers' own, in fp32: the same logits, the same greedy tokens."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from tests.parity import reference
from tests.parity.conftest import Page, Sides, drawn
from worker.engine.deepseek import encoder, repeats
from worker.engine.deepseek.batch import Batch
from worker.engine.deepseek.blocks import blocks_for
from worker.engine.deepseek.cache import KvCache, Prompts
from worker.engine.deepseek.config import Version
from worker.engine.deepseek.repeats import Rule
from worker.engine.deepseek.scheduler import Scheduler, Sequence
from worker.engine.deepseek.tokens import END

Both = Callable[[Version], Sides]

TOLERANCE = 2e-4
SHORT = Rule(3, 12)  # strikes every few tokens where weights are random

CASES: list[tuple[Version, str, tuple[int, int]]] = [
    (1, "tiny", (620, 877)),
    (1, "small", (620, 877)),
    (1, "base", (620, 877)),
    (1, "large", (620, 877)),
    (1, "gundam", (620, 877)),  # 2 x 3 tiles
    (1, "gundam", (1280, 720)),  # 2 x 1
    (1, "gundam", (600, 512)),  # none
    (2, "base", (620, 877)),
    (2, "gundam", (620, 877)),
    (2, "gundam", (700, 640)),  # none
]


@pytest.mark.parametrize(("version", "mode", "size"), CASES)
def test_logits_of_a_whole_prompt_are_those_of_the_reference(
    both: Both, version: Version, mode: str, size: tuple[int, int]
) -> None:
    sides = both(version)
    page = drawn(sides, mode, seed=1, size=size)

    ours = prompt_logits(sides, page)
    theirs = reference.logits(sides.theirs, page.prompt, page.views, version)

    assert ours.shape == theirs.shape
    assert theirs.std() > 0.5  # or the comparison would say little
    assert (ours - theirs).abs().max() < TOLERANCE
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


@torch.inference_mode()
def prompt_logits(sides: Sides, page: Page) -> torch.Tensor:
    network, count = sides.ours, len(page.prompt)
    [features] = encoder.features(network, [page.views])
    cache = KvCache(
        network.config.language, blocks_for(count), dtype=torch.float32, device=network.device
    )
    embedded = Batch(network, rows=1, blocks=1).embedded(page.prompt, features)
    attend = Prompts(cache, [range(blocks_for(count))], [count])
    return network.say(network.think(embedded, attend))


def test_the_picture_is_looked_at(both: Both) -> None:
    for version in (1, 2):
        sides = both(version)
        one, other = (prompt_logits(sides, drawn(sides, "base", seed)) for seed in (1, 2))

        assert (one - other).abs().max() > 0.1


@pytest.mark.parametrize("rule", [repeats.NONE, SHORT, repeats.PUBLISHED], ids=str)
@pytest.mark.parametrize(("version", "mode", "size"), CASES[:1] + CASES[4:5] + CASES[8:9])
def test_one_page_is_read_as_the_reference_generates_it(
    both: Both, version: Version, mode: str, size: tuple[int, int], rule: Rule
) -> None:
    sides = both(version)
    page = drawn(sides, mode, seed=2, size=size)

    assert read(sides, [page], most=[100], rule=rule) == [generated(sides, page, 100, rule)]


def generated(sides: Sides, page: Page, most: int, rule: Rule) -> list[int]:
    return reference.generate(
        sides.theirs, page.prompt, page.views, sides.version, most=most, rule=rule
    )


_GENERATED: dict[tuple[int, int, Rule], list[int]] = {}


def generated_once(sides: Sides, seed: int, page: Page, most: int, rule: Rule) -> list[int]:
    """The same for each size of a burst, so not computed twice: it takes most of the time."""
    key = (sides.version, seed, rule)
    if key not in _GENERATED:
        _GENERATED[key] = generated(sides, page, most, rule)
    return _GENERATED[key]


def read(
    sides: Sides, pages: list[Page], *, most: list[int], rule: Rule, rows: int = 3, burst: int = 1
) -> list[list[int]]:
    """What our batch puts out of each page; a page joins when another leaves."""
    batch = Batch(sides.ours, rows=rows, blocks=80)
    scheduler = Scheduler(rows=rows, blocks=80)
    sequences = [
        Sequence(number, len(page.prompt), limit)
        for number, (page, limit) in enumerate(zip(pages, most, strict=True))
    ]
    for sequence in sequences:
        scheduler.submit(sequence)
    while True:
        if beginners := scheduler.admit(2):
            seen = encoder.features(sides.ours, [pages[one.id].views for one in beginners])
            batch.begin(beginners, [pages[one.id].prompt for one in beginners], seen, rule)
            _leave(scheduler, batch.look(scheduler.running, 1).read())
        if not scheduler.running:
            return [sequence.output for sequence in sequences]
        batch.go_on(scheduler.running, burst)
        _leave(scheduler, batch.look(scheduler.running, burst).read())


def _leave(scheduler: Scheduler, ended: list[Sequence]) -> None:
    for sequence in ended:
        scheduler.end(sequence.id)


@pytest.mark.parametrize("rule", [repeats.NONE, SHORT], ids=str)
@pytest.mark.parametrize("burst", [1, 5])
@pytest.mark.parametrize("version", [1, 2])
def test_pages_that_join_and_leave_are_read_as_if_they_were_alone(
    both: Both, version: Version, burst: int, rule: Rule
) -> None:
    sides = both(version)
    modes = ["gundam", "base"] if version == 2 else ["gundam", "tiny", "small", "base"]
    pages = [drawn(sides, modes[seed % len(modes)], seed) for seed in range(6)]
    most = [3, 70, 20, 1, 65, 40]

    together = read(sides, pages, most=most, rule=rule, burst=burst)

    for seed, (page, limit, output) in enumerate(zip(pages, most, together, strict=True)):
        assert output == generated_once(sides, seed, page, limit, rule)
        assert len(output) == limit or output[-1] == END


def test_an_output_ends_where_the_model_ends_it(
    both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end token takes the place of one that comes: both sides must stop there."""
    sides = both(1)
    page = drawn(sides, "tiny", seed=3)
    whole = generated(sides, page, 30, SHORT)
    last = next(token for token in whole[5:] if whole.index(token) >= 5)
    ours, theirs = sides.ours.lm_head.weight, sides.theirs.lm_head.weight
    kept = ours[[END, last]].clone()
    try:
        with torch.no_grad():
            for head in (ours, theirs):
                head[END] = kept[1]
                head[last] = kept[0]
        output = read(sides, [page], most=[30], rule=SHORT, burst=4)
        assert output == [generated(sides, page, 30, SHORT)]
        assert output[0] == [*whole[: whole.index(last)], END]
    finally:
        with torch.no_grad():
            for head in (ours, theirs):
                head[[END, last]] = kept


# The rule against repeats, alone


def test_the_rule_forbids_what_its_words_say() -> None:
    dice = random.Random(0)  # noqa: S311 - seeded
    struck = 0
    for _ in range(150):
        rules = [
            Rule(n, n + dice.randrange(0, 20)) if n else repeats.NONE
            for n in (dice.choice([0, 2, 3, 5]) for _ in range(8))
        ]
        letters = dice.randrange(1, 4)  # few, so that they repeat
        alphabet = [*range(10, 10 + letters), 128821, 128822]
        outputs = [dice.choices(alphabet, k=dice.randrange(0, 60)) for _ in rules]

        banned = forbidden(outputs, rules)

        assert banned == [reference.banned(*pair) for pair in zip(outputs, rules, strict=True)]
        struck += sum(map(len, banned))
    assert struck > 200


@pytest.mark.parametrize("rule", [repeats.PUBLISHED, repeats.MOST, Rule(2, 128)])
def test_long_rules_reach_as_far_as_they_say(rule: Rule) -> None:
    run = list(range(100, 100 + rule.n - 1))
    for gap in range(rule.window - 2 * rule.n + 4):
        output = [5] * 7 + [*run, 77] + [9] * gap + run

        assert forbidden([output], [rule]) == [reference.banned(output, rule)]


def forbidden(outputs: list[list[int]], rules: list[Rule]) -> list[set[int]]:
    reach = repeats.reach()
    recent = torch.tensor([([-1] * reach + output)[-reach:] for output in outputs])
    logits = torch.zeros(len(outputs), 129_280)
    repeats.forbid(
        logits,
        recent.int(),
        torch.tensor([len(output) for output in outputs]),
        torch.tensor([rule.n for rule in rules]),
        torch.tensor([rule.window for rule in rules]),
    )
    return [set(row.isinf().nonzero()[:, 0].tolist()) for row in logits]
