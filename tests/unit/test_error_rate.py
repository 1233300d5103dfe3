from __future__ import annotations

import pytest

from tests.error_rate import character_error_rate


@pytest.mark.parametrize(
    ("read", "truth", "rate"),
    [
        ("octavo", "octavo", 0),
        ("0ctavo", "octavo", 1 / 6),
        ("octav", "octavo", 1 / 6),
        ("octavoo", "octavo", 1 / 6),
        ("", "octavo", 1),
        ("", "", 0),
        ("x", "", 1),
    ],
)
def test_every_edit_counts_once(read: str, truth: str, rate: float) -> None:
    assert character_error_rate(read, truth) == pytest.approx(rate)


@pytest.mark.parametrize(
    ("read", "truth"),
    [
        (" a  leaf\nof paper\f", "a leaf of paper"),
        ("竹帘上留下\n一层湿纸。 纸浆", "竹帘上留下一层湿纸。纸浆"),
        ("八开\uff0c对折", "八开,对折"),
        ("\ufb01ne", "fine"),
    ],
)
def test_typesetting_does_not_count(read: str, truth: str) -> None:
    assert character_error_rate(read, truth) == 0


def test_a_missing_space_between_words_counts() -> None:
    assert character_error_rate("aleaf", "a leaf") == pytest.approx(1 / 6)
