"""Lines: how long functions are, and how much of the code is comment."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.counting.source import Source


@dataclass(frozen=True)
class Lengths:
    """Lines of functions, from `def` to the last line, docstring and blanks included.

    Attributes:
        functions: how many there are, nested ones and methods too.
        median: of their lines.
        p90: nine in ten are no longer than this.
    """

    functions: int
    median: float
    p90: float


def function_lengths(sources: Sequence[Source]) -> Lengths:
    """Measures all functions; decorators are not counted."""
    found = [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for source in sources
        for node in source.functions()
    ]
    p90 = np.quantile(found, 0.9, method="lower")
    return Lengths(len(found), float(np.median(found)), float(p90))


def comment_share(sources: Sequence[Source]) -> float:
    """Returns the percentage of lines with a `#` comment, alone or after code.

    Docstrings are not comments; markers for tools (`noqa`, `type: ignore`) are, as
    they were in the first count.
    """
    every = sum(source.lines for source in sources)
    return 100 * sum(_comments(source.text) for source in sources) / every


def _comments(text: str) -> int:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type == tokenize.COMMENT for token in tokens)
