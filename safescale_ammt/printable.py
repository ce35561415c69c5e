"""Foreign text for a terminal, a log or a page: what is not seen is spelled.

A name in somebody's file may hold an escape sequence that repaints a terminal, a line
break that forges a line of a log, or a mark that turns the reading direction.
"""

from __future__ import annotations

import re

# Control characters, halves of surrogate pairs, separators of lines, and marks without
# a width. The joiners of Persian and of emoji (U+200C, U+200D) and every kind of blank
# are what people write.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_WHAT = "a line break, a control character or a mark that is not seen"


def printable(text: str) -> str:
    r"""Returns a text with every character that is not seen spelled, as `\x1b`."""
    if text.isprintable():
        return text
    return _UNSEEN.sub(lambda found: ascii(found.group())[1:-1], text)


def printable_lines(text: str) -> str:
    """Does the same to each line of a text of several, which stay lines."""
    return "\n".join(map(printable, text.split("\n")))


def unseen_in(name: str) -> str:
    """Returns what a name holds that nobody sees, in words; "" if nothing."""
    found = _UNSEEN.search(name)
    return f"{_WHAT} (U+{ord(found.group()):04X})" if found else ""
