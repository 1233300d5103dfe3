"""How many characters of a reading are wrong."""

from __future__ import annotations

import re
import unicodedata

from rapidfuzz.distance import Levenshtein

_CJK = r"[\u3000-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]"
_SPACE_BESIDE_CJK = re.compile(rf"(?<={_CJK})\s+|\s+(?={_CJK})")


def character_error_rate(read: str, truth: str) -> float:
    """Edits that turn `read` into `truth`, as a share of the characters of `truth`; 0 is perfect.

    An edit inserts, deletes or replaces one character. It can be more than 1. Both texts are
    normalised first, so that it counts characters and not typesetting: NFKC makes ligatures and
    full-width forms plain, each run of white space is one space, there is none at the ends, and
    none beside Chinese and Japanese characters, where a line break stands for nothing. Where the
    truth is empty it is 0 for an empty reading and 1 for any other.
    """
    read, truth = _normalised(read), _normalised(truth)
    if not truth:
        return float(bool(read))
    return Levenshtein.distance(read, truth) / len(truth)


def _normalised(text: str) -> str:
    plain = _SPACE_BESIDE_CJK.sub("", unicodedata.normalize("NFKC", text))
    return " ".join(plain.split())
