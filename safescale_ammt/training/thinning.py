"""Thinning: the rows of a large split that training or search looks at.

A run takes a fixed number of steps, so that a net draws no more rows than steps times
batch size, however many there are. Of a split with more rows than its limit a part is
drawn once, while the split is read, and is the split from then on: what is drawn
without repeats from a part drawn without repeats is drawn so from the whole. A rate
loses by it what its standard error says, at most 1 / (2 sqrt(rows)).

The draw is systematic within strata, which keeps their shares to a row: the rows of a
stratum are cut into runs of rows / most in the order of the file, and a keyed hash of
the run says which of its rows stays. Nothing but a counter for each stratum is held.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Limits(NamedTuple):
    """Most rows that are kept: of *train*, and of each other split."""

    train: int
    other: int

    def of(self, split: str) -> int:
        """Returns the most rows of a split."""
        return self.train if split == "train" else self.other


TRAINING = Limits(1 << 21, 1 << 18)
"""Over three times what a net draws by default, and rates that err by .001."""
SEARCH = Limits(1 << 17, 1 << 15)
"""Over three times what a short run draws, and rates that err by .003."""
# Odd numbers of splitmix64 (Steele, Lea & Flood 2014).
_STEP, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


class Thinning:
    """Says batch by batch which rows of a split stay.

    Args:
        rows: of the whole split.
        most: rows that stay; all if there are no more.
    """

    def __init__(self, rows: int, most: int) -> None:
        self.rows, self.most = rows, most
        self._seen: dict[int, int] = defaultdict(int)

    def kept(self, strata: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns which rows of the next batch stay.

        Args:
            strata: code (n,) of each row's stratum.
        """
        if self.rows <= self.most:
            return np.arange(len(strata))
        codes, index, counts = np.unique(
            strata, return_inverse=True, return_counts=True
        )
        order = np.argsort(index, kind="stable")
        before = np.array([self._seen[code] for code in codes.tolist()])
        for code, count in zip(codes.tolist(), counts.tolist(), strict=True):
            self._seen[code] += count
        # Each row's number within its stratum, those of earlier batches included.
        begins = np.cumsum(counts) - counts
        stratum = index[order]
        number = np.arange(len(strata)) - begins[stratum] + before[stratum]
        # Run r has the numbers from ceil(r rows / most) to that of r + 1.
        run = number * self.most // self.rows
        first, end = (-(-r * self.rows // self.most) for r in (run, run + 1))
        stays = first + draws(codes[stratum], run) % (end - first) == number
        return np.sort(order[stays])


def draws(stratum: NDArray[np.int64], run: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns a random number below 2^62 for each run of a stratum (n,)."""
    with np.errstate(over="ignore"):
        word = stratum.astype(np.uint64) * np.uint64(_SECOND) + run.astype(np.uint64)
        word = (word + np.uint64(1)) * np.uint64(_STEP)
        for shift, factor in ((30, _FIRST), (27, _SECOND)):
            word = (word ^ (word >> np.uint64(shift))) * np.uint64(factor)
    return (word >> np.uint64(2)).astype(np.int64)
