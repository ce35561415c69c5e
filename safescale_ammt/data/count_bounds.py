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
                # Views: parts [:-1] and their total [-1], narrowed in place.
                least, most = np.moveaxis(low, axis, 0), np.moveaxis(high, axis, 0)
                parts = slice(None, -1)
                least[-1] = np.maximum(least[-1], least[parts].sum(axis=0))
                most[-1] = np.minimum(most[-1], most[parts].sum(axis=0))
                others_least = least[parts].sum(axis=0) - least[parts]
                others_most = most[parts].sum(axis=0) - most[parts]
                least[parts] = np.maximum(least[parts], least[-1] - others_most)
                most[parts] = np.minimum(most[parts], most[-1] - others_least)
        least = np.max([low[-1] for low, _ in ranges.values()], axis=0)
        most = np.min([high[-1] for _, high in ranges.values()], axis=0)
        for low, high in ranges.values():
            low[-1], high[-1] = least, most
    return ranges
