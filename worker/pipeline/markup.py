"""What an engine's text may consist of."""

from __future__ import annotations

import re

_NEWLINES = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_SURROGATES = re.compile("[\ud800-\udfff]")
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters but \t and the newlines
    "\u202a-\u202e\u2066-\u2069"  # override, embed and isolate: they reorder what stands around
    "\ufeff\ufffe\uffff]"  # byte order mark; no characters, and XML refuses them
)


def clean(text: str) -> str:
    r"""`text` as it may be stored, sent and shown: the one rule for it.

    Every kind of line break is `\n`. Control characters other than `\n` and `\t` are gone, NUL
    among them (Postgres refuses it, XML the others, and a terminal obeys them), and so are those
    that change the direction of the text around them; the marks U+200E and U+200F stay. A lone
    surrogate, which has no UTF-8, is U+FFFD. Everything else is as the engine said it: this is
    no protection against HTML, which is for whoever renders.
    """
    text = _NEWLINES.sub("\n", text)
    return _FORBIDDEN.sub("", _SURROGATES.sub("\ufffd", text))
