from __future__ import annotations

import json
import random

import pytest

from worker.pipeline.markup import clean


def test_ordinary_text_stays_as_it_is() -> None:
    text = "Größe\t12 €\n\n# مرحبا 漢字 🎉 <b>&amp;</b>"

    assert clean(text) == text


def test_nul_and_terminal_escapes_are_gone() -> None:
    assert clean("a\x00b\x1b[2Jc\x07\x7f\x9bd") == "ab[2Jcd"


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\v", "\f", "\x85", "\u2028", "\u2029"])
def test_every_line_break_is_one_newline(ending: str) -> None:
    assert clean(f"a{ending}b") == "a\nb"


def test_a_lone_surrogate_becomes_the_replacement_character() -> None:
    assert clean("a\ud800b\udc00c") == "a\ufffdb\ufffdc"


def test_overrides_of_direction_are_gone_and_marks_stay() -> None:
    assert clean("a\u202eb\u2066c\u2069\u200fd") == "abc\u200fd"


def test_whatever_comes_can_be_stored_and_cleaned_again() -> None:
    chance = random.Random(8)  # noqa: S311 - seeded
    for _ in range(300):
        text = "".join(
            chr(chance.choice((chance.randrange(256), chance.randrange(0x110000))))
            for _ in range(200)
        )

        cleaned = clean(text)

        assert "\0" not in json.loads(json.dumps(cleaned)).encode().decode()
        assert clean(cleaned) == cleaned
