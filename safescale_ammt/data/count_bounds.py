"""What withheld counts must at least be, by the counts that are told.

A group column is a table of values x classes with the group's rows at the right, the
class's rows below and all rows in the corner. Each row and each column of it adds up,
so that a part is at least the total's least minus the most of the other parts. The
class's rows are the same for every group column. These bounds are never too high,
though a linear program over all group columns at once may find higher ones.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
Range = tuple[IntArray, IntArray]
"""Least and most of every cell of a table with its totals (g + 1, C + 1)."""
# Class totals travel from one column to the others and from there into its cells.
_ROUNDS = 3


def narrowed(tables: Mapping[str, Range]) -> dict[str, Range]:
    """Narrows the ranges by what must add up.

    Args:
        tables: ranges by group column, as the counts tell them; the last row and
            column are the totals.
    """
    ranges = {name: (low.copy(), high.copy()) for name, (low, high) in tables.items()}
    for _ in range(_ROUNDS):
        for low, high in ranges.values():
            for axis in (0, 1):
                _add_up(np.moveaxis(low, axis, 0), np.moveaxis(high, axis, 0))
        least = np.max([low[-1] for low, _ in ranges.values()], axis=0)
        most = np.min([high[-1] for _, high in ranges.values()], axis=0)
        for low, high in ranges.values():
            low[-1], high[-1] = least, most
    return ranges


def _add_up(low: IntArray, high: IntArray) -> None:
    """Narrows, in place, parts [:-1] and their total [-1] along the first axis."""
    parts = slice(None, -1)
    low[-1] = np.maximum(low[-1], low[parts].sum(axis=0))
    high[-1] = np.minimum(high[-1], high[parts].sum(axis=0))
    others_low = low[parts].sum(axis=0) - low[parts]
    others_high = high[parts].sum(axis=0) - high[parts]
    low[parts] = np.maximum(low[parts], low[-1] - others_high)
    high[parts] = np.minimum(high[parts], high[-1] - others_low)
