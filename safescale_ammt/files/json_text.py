"""JSON that others may have written: read in bounded time and memory, or refused.

Python's own reader takes more than JSON is (NaN, a key twice), and gives up on nesting
and on long numbers in its own words. What is read here has one meaning, and every
number and text in it can be compared, calculated with and digested.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

DEEPEST = 64
"""Levels of objects and lists; our own files have fewer than ten."""
LARGEST = 32 << 20
"""Bytes of one JSON text."""
LONGEST = 128 << 20
"""Bytes of a log with one JSON text a line."""
_STEPS = {ord(c): step for c, step in zip("[{]}", (1, 1, -1, -1), strict=True)}
_NO_BRACKETS = bytes(c for c in range(256) if chr(c) not in '[]{}"')
_ESCAPED, _TEXTS = re.compile(rb"\\.", re.DOTALL), re.compile(rb'"[^"]*"?')
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")


class JsonError(ValueError):
    """Bytes that are not JSON as we read it; the message quotes nothing of them."""


def parse_json(data: bytes | str, most: int = LARGEST) -> Any:
    """Reads one JSON text.

    Args:
        data: UTF-8.
        most: bytes that it may have.

    Raises:
        JsonError: it is not JSON, too large or deep, gives a key twice, or has a
            number or text that is none of ours.
    """
    raw = data.encode(errors="surrogatepass") if isinstance(data, str) else data
    if len(raw) > most:
        raise JsonError(f"{len(raw):,} bytes, at most {most:,} are read")
    if depth_of(raw) > DEEPEST:
        raise JsonError(f"nested more than {DEEPEST} levels deep")
    try:
        value = json.loads(
            raw.decode("utf-8"),
            parse_int=_whole,
            parse_float=_real,
            parse_constant=_real,
            object_pairs_hook=_object,
        )
        # Half a surrogate pair has no digest, and only an escape makes it.
        if _HALF.search(raw):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise JsonError("no Unicode text") from None
    except json.JSONDecodeError as error:
        raise JsonError(f"{error.msg} at character {error.pos}") from None
    return value


def parse_lines(data: bytes, most: int = LARGEST) -> list[Any]:
    """Reads one JSON text a line.

    Raises:
        JsonError: as `parse_json`, of the first such line.
    """
    # At line feeds alone: a text may hold every other sign that parts lines.
    return [parse_json(line, most) for line in data.split(b"\n") if line.strip()]


def depth_of(raw: bytes) -> int:
    """Returns how deep a JSON text is nested at most, without reading it."""
    if (brackets_opened := raw.count(b"[") + raw.count(b"{")) <= DEEPEST:
        return brackets_opened
    if b"\\" in raw:
        raw = _ESCAPED.sub(b"", raw)
    brackets = _TEXTS.sub(b"", raw.translate(None, _NO_BRACKETS))
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0)


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise JsonError("an object gives a key twice")
    return found


def _whole(text: str) -> int:
    # As numpy, Parquet and every other reader of ours hold it.
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**63:
        raise JsonError("a whole number of more than 64 bits")
    return number


def _real(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise JsonError("a number that is not finite")
    return number
