"""A worker on each card, whatever becomes of the others."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy import cards
from deploy.cards import Card, NoCards

LISTED = "0, GPU-aaaa-1\n1, GPU-abbb-2\n2, GPU-cccc-3\n"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (None, ["GPU-aaaa-1", "GPU-abbb-2", "GPU-cccc-3"]),
        ("2,0", ["GPU-cccc-3", "GPU-aaaa-1"]),
        ("GPU-ab", ["GPU-abbb-2"]),
        ("GPU-cccc-3, 2", ["GPU-cccc-3"]),
    ],
)
def test_cards_are_known_by_their_uuids(wanted: str | None, found: list[str]) -> None:
    assert cards.chosen(LISTED, wanted) == found


@pytest.mark.parametrize("wanted", ["", "-1", "7", "GPU-a", "GPU-x"])
def test_what_is_no_card_is_said(wanted: str) -> None:
    with pytest.raises(NoCards, match="CUDA_VISIBLE_DEVICES"):
        cards.chosen(LISTED, wanted)


def test_a_machine_without_a_driver_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "ASK", ("/nowhere/nvidia-smi",))

    with pytest.raises(NoCards, match="does not answer"):
        cards.visible({})


def card(uuid: str, script: str) -> Card:
    return Card(uuid, [sys.executable, "-c", script], {})


def until(happened: Callable[[], bool], seconds: float = 30) -> Callable[[], bool]:
    """Whether to stop: when it has happened; fails where that takes too long."""
    deadline = time.monotonic() + seconds

    def is_told_to_stop() -> bool:
        assert time.monotonic() < deadline, "it did not happen"
        return happened()

    return is_told_to_stop


def test_a_worker_sees_its_own_card_alone(tmp_path: Path) -> None:
    seen = [tmp_path / name for name in ("one", "two")]
    script = "import os, time; open({!r}, 'w').write(os.environ['CUDA_VISIBLE_DEVICES'] + '.')"
    made = [
        card(f"GPU-{number}", script.format(str(path)) + "; time.sleep(60)")
        for number, path in enumerate(seen)
    ]

    cards.keep(made, until(lambda: all(p.exists() and p.read_text() for p in seen)), lambda _: None)

    assert [path.read_text() for path in seen] == ["GPU-0.", "GPU-1."]
    assert [one.pid for one in made] == [None, None]


def test_a_card_that_fails_thrice_is_taken_out_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cards, "RESTART_SECONDS", 0)
    good, bad = card("GPU-good", "import time; time.sleep(60)"), card("GPU-bad", "exit(3)")
    said: list[str] = []
    pids: set[int | None] = set()

    def is_over() -> bool:
        pids.add(good.pid)
        return bad.is_out

    cards.keep([good, bad], until(is_over), said.append)

    assert [line.partition(";")[2] for line in said] == [
        *[" starting it again"] * 2,
        " taken out",
    ]
    assert all(line.startswith("GPU-bad: its worker ended with status 3") for line in said)
    assert not good.is_out and len(pids - {None}) == 1


def test_without_any_card_left_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cards, "RESTART_SECONDS", 0)

    with pytest.raises(NoCards, match="all cards"):
        cards.keep([card("GPU-bad", "exit(3)")], until(lambda: False), lambda _: None)


def test_deaths_long_ago_are_forgiven() -> None:
    one = card("GPU-old", "exit(3)")
    for at in (0.0, 1.0, cards.DEATHS_SECONDS + 2):
        one._mourn(at, 3, lambda _: None)  # noqa: SLF001

    assert not one.is_out
