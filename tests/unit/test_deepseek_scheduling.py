"""Rows, blocks and loops: the parts of the engine that know no torch."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from worker.engine.deepseek.blocks import BLOCK_TOKENS, BlockPool, blocks_for
from worker.engine.deepseek.loops import LOOP_TOKENS, LoopWatch
from worker.engine.deepseek.scheduler import Scheduler, Sequence
from worker.engine.deepseek.tokens import CELL, END_CELL, END_ROW, ROW


def sequence(page_id: int, tokens: int = BLOCK_TOKENS) -> Sequence:
    return Sequence(page_id, prompt_tokens=1, max_output_tokens=tokens - 1)


def ids(sequences: list[Sequence]) -> list[int]:
    return [sequence.id for sequence in sequences]


def test_the_hard_part_needs_no_torch() -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import worker.engine.deepseek.scheduler, worker.engine.deepseek.loops\n"
    )

    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_tokens_take_whole_blocks() -> None:
    assert [blocks_for(n) for n in (0, 1, 64, 65, 8192)] == [0, 1, 1, 2, 128]


def test_a_page_gets_all_its_blocks_or_none() -> None:
    pool = BlockPool(4)

    first = pool.take(3 * BLOCK_TOKENS)
    assert first is not None and len(set(first)) == 3
    assert pool.take(2 * BLOCK_TOKENS) is None
    assert pool.free == 1

    pool.give_back(first)
    assert pool.free == 4
    with pytest.raises(AssertionError, match="twice"):
        pool.give_back(first)


def test_pages_are_admitted_in_the_order_in_which_they_came() -> None:
    scheduler = Scheduler(rows=2, blocks=10)
    for page_id in (1, 2, 3):
        scheduler.submit(sequence(page_id))

    assert ids(scheduler.admit(8)) == [1, 2]
    assert ids(scheduler.admit(8)) == []
    scheduler.end(1)
    assert ids(scheduler.admit(8)) == [3]


def test_a_long_page_is_not_passed_over() -> None:
    scheduler = Scheduler(rows=4, blocks=4)
    scheduler.submit(sequence(1, 2 * BLOCK_TOKENS))
    assert ids(scheduler.admit(8)) == [1]
    scheduler.submit(sequence(2, 3 * BLOCK_TOKENS))
    scheduler.submit(sequence(3))

    assert ids(scheduler.admit(8)) == []
    scheduler.end(1)
    assert ids(scheduler.admit(8)) == [2, 3]


def test_no_more_are_begun_at_once_than_asked_for() -> None:
    scheduler = Scheduler(rows=8, blocks=8)
    for page_id in range(5):
        scheduler.submit(sequence(page_id))

    assert [len(scheduler.admit(2)) for _ in range(3)] == [2, 2, 1]


def test_a_page_that_waits_can_be_taken_out() -> None:
    scheduler = Scheduler(rows=1, blocks=1)
    scheduler.submit(sequence(1))
    scheduler.submit(sequence(2))

    scheduler.end(1)
    scheduler.end(99)

    assert ids(scheduler.admit(8)) == [2]


def test_a_page_that_could_never_be_admitted_is_no_page() -> None:
    with pytest.raises(AssertionError, match="for ever"):
        Scheduler(rows=1, blocks=2).submit(sequence(1, 3 * BLOCK_TOKENS))


def test_rows_and_blocks_belong_to_one_page_each_whatever_happens() -> None:
    dice = random.Random(0)  # noqa: S311 - seeded
    scheduler = Scheduler(rows=5, blocks=40)
    known: set[int] = set()
    for page_id in range(2_000):
        scheduler.submit(sequence(page_id, dice.randrange(2, 20 * BLOCK_TOKENS)))
        known.add(page_id)
        scheduler.admit(dice.randrange(0, 4))
        while len(known) > dice.randrange(3, 12):
            gone = dice.choice(sorted(known))
            known.remove(gone)
            scheduler.end(gone)
        running = scheduler.running
        rows = [one.row for one in running]
        blocks = [block for one in running for block in one.blocks]
        assert len(set(rows)) == len(rows) and set(rows) <= set(range(5))
        assert len(set(blocks)) == len(blocks)
        assert scheduler.pool.free == 40 - len(blocks)
        assert all(len(one.blocks) * BLOCK_TOKENS >= one.reserved_tokens for one in running)
    for page_id in known:
        scheduler.end(page_id)
    assert scheduler.pool.free == 40


# Loops


def ends_at(output: list[int]) -> int | None:
    """After how many tokens the loop is certain."""
    watch = LoopWatch()
    return next((at for at, token in enumerate(output, 1) if watch.see([token])), None)


@pytest.mark.parametrize("period", [1, 2, 7, 62, 128, 500])
def test_an_output_that_goes_round_is_told(period: int) -> None:
    loop = [1000 + number for number in range(period)]
    found = ends_at([*range(50), *loop * (4 * max(LOOP_TOKENS, period) // period)])

    assert found is not None
    assert LOOP_TOKENS <= found - 50 <= LOOP_TOKENS + 4 * period + 8


def test_what_only_repeats_is_counted() -> None:
    watch = LoopWatch()
    start, loop = list(range(100)), list(range(1000, 1070))

    assert watch.see([*start, *loop * 20])

    assert watch.repeated == 19 * len(loop)


def test_a_table_with_empty_rows_is_no_loop_and_one_without_end_is() -> None:
    row = [ROW, *[CELL, END_CELL] * 8, END_ROW]

    assert ends_at(row * 20) is None
    assert ends_at(row * 200) is not None


def test_text_that_comes_back_changed_is_no_loop() -> None:
    dice = random.Random(0)  # noqa: S311 - seeded
    assert ends_at([dice.randrange(20) for _ in range(20_000)]) is None
    counting = [token for number in range(500) for token in (7, 7, 7, 7, 7, 7, 7, 7, number)]
    assert ends_at(counting) is None


def test_a_loop_that_is_left_again_is_forgiven() -> None:
    watch = LoopWatch()
    assert not watch.see([1, 2, 3] * 100)
    assert not watch.see([4])
    assert not watch.see([1, 2, 3] * 100)
