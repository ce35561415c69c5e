"""Cells of a nuisance rate, and stretches of them whose probabilities are bounded.

A nuisance rate is searched on a scale t in [0, 1] that is cut into equal cells. The
*ceiling* of a cell is an upper bound of P(z(table) <= z observed) over it. What is
asked of cells (which has the largest ceiling, whether one is above a level) needs few
of them: a `Region` bounds all cells between two whose ceilings are known, and only a
gap whose bound is too large is divided.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

SPENT = 1e-7
"""Chance that the interval of the nuisance rate misses: no level below it shows."""
# Samples whose limits are kept, 4 MiB for each.
_KEPT_UP_TO = 1 << 18
_FIRST_CELLS = 64
# Gaps that are divided at once, and the parts of one.
_DIVIDED, _MOST_PARTS = 32, 32


class Region(Protocol):
    """The tables {z <= observed}, and bounds of their probability on cells of t."""

    order: int
    """Power of a gap's width by which `between` exceeds the ceilings."""

    def ceiling(self, left: Array, right: Array) -> Array:
        """Upper bounds on [left, right], shape (c,), exact where left is right."""

    def narrow(self, cells: IntArray) -> Array:
        """The ceilings of single cells of the grid, (c,)."""

    def between(self, first: IntArray, last: IntArray, ends: Array, /) -> Array:
        """Upper bounds of the ceilings of all cells between two, (c,).

        Args:
            first: a cell (c,).
            last: a later cell (c,).
            ends: the ceilings of both (2, c).
        """


@dataclass(frozen=True)
class Span:
    """The cells that are searched: `first` to `last` - 1, each 1 / `grid` wide.

    Attributes:
        first, last: cells, whole numbers or arrays of them, one for each table.
        grid: cells of all t, the same whatever the table.
        spent: chance that the true nuisance rate lies in none of the cells.
    """

    first: IntArray
    last: IntArray
    grid: int
    spent: float = 0.0

    def of(self, which: BoolArray) -> Span:
        """The one span that holds those of all these tables."""
        first, last = self.first[which].min(), self.last[which].max()
        return Span(first, last, self.grid, self.spent)

    def only(self, which: BoolArray) -> Span:
        """The spans of these tables."""
        return Span(self.first[which], self.last[which], self.grid, self.spent)

    def hold(self, cell: int) -> BoolArray:
        """Tells which tables' spans hold a cell."""
        return np.asarray((self.first <= cell) & (cell < self.last))


def span_of(low: Array, high: Array, grid: int) -> Span:
    """Cells of the grid that hold intervals [low, high] of t, none if low > high."""
    first = np.minimum(np.floor(low * grid), grid - 1).astype(np.int64)
    last = np.maximum(np.ceil(high * grid).astype(np.int64), first + (low <= high))
    return Span(first, np.minimum(last, grid), grid, SPENT)


def rate_limits(x: IntArray, n: int, tail: float) -> tuple[Array, Array]:
    """Clopper and Pearson's limits (1934) of rates, (k,), each one-sided at `tail`."""
    if n > _KEPT_UP_TO:
        values, place = np.unique(x, return_inverse=True)
        low, high = new_limits(values, n, tail)
        return low[place], high[place]
    # Lines, pairs of groups and draws ask for the same hits again and again.
    kept = kept_limits(n, tail)
    values = np.unique(x[np.isnan(kept[0, x])])
    kept[:, values] = new_limits(values, n, tail)
    return kept[0, x], kept[1, x]


@lru_cache(maxsize=8)
def kept_limits(n: int, _tail: float) -> Array:
    """Limits (2, n + 1) of all hits as far as they were asked for, else NaN."""
    return np.full((2, n + 1), np.nan)


def new_limits(x: IntArray, n: int, tail: float) -> Array:
    """The limits (2, k) themselves."""
    # P(X >= x | n, p) is the regularised incomplete beta function I_p(x, n - x + 1);
    # 1 and 0 for it where there is no such limit.
    some, most = np.maximum(x, 1), np.minimum(x, n - 1)
    low = np.where(x > 0, betaincinv(some, n - some + 1, tail), 0.0)
    high = np.where(x < n, betaincinv(most + 1, n - most, 1 - tail), 1.0)
    return np.stack([low, high])


@dataclass(frozen=True)
class Gaps:
    """Stretches of cells between two whose ceilings are known, and bounds of theirs.

    Attributes:
        cells: the cells that were asked for last.
        values: their ceilings.
        first, last: the two known cells of each gap (g,).
        ends: their ceilings (2, g).
        bound: upper bound of the ceilings between them (g,).
    """

    cells: IntArray
    values: Array
    first: IntArray
    last: IntArray
    ends: Array
    bound: Array

    @classmethod
    def over(cls, region: Region, span: Span) -> Gaps:
        """Asks for cells all over the span, and bounds what lies between."""
        width = int(span.last - span.first)
        steps = min(_FIRST_CELLS, width - 1)
        cells = span.first + np.arange(steps + 1) * (width - 1) // max(1, steps)
        values = region.narrow(cells)
        first, last, ends = cells[:-1], cells[1:], np.stack([values[:-1], values[1:]])
        bound = region.between(first, last, ends)
        return cls(cells, values, first, last, ends, bound)

    def kept(self, which: BoolArray) -> Gaps:
        """Only these gaps, and of them those that hold a cell."""
        which = which & (self.last - self.first > 1)
        of = self.first[which], self.last[which], self.ends[:, which]
        return Gaps(self.cells, self.values, *of, self.bound[which])

    def meet(self, first: IntArray, last: IntArray) -> BoolArray:
        """Tells which gaps hold a cell of one of these spans, sorted by `first`."""
        reach = np.maximum.accumulate(np.append(-1, last))
        return np.asarray(reach[np.searchsorted(first, self.last)] > self.first + 1)

    def divided(self, region: Region, allowed: float) -> Gaps:
        """Asks for cells within the gaps with the largest bounds, and bounds the parts.

        Args:
            region: the tables.
            allowed: above it ceilings count.
        """
        worst = np.zeros(len(self.bound), dtype=bool)
        worst[np.argsort(-self.bound)[:_DIVIDED]] = True
        asked, rest = self.kept(worst), self.kept(~worst)
        parts = asked.parts(region.order, allowed)
        of = np.repeat(np.arange(len(parts)), parts + 1)
        place = np.concatenate([np.arange(p + 1) for p in parts])
        cuts = asked.first[of] + (asked.last - asked.first)[of] * place // parts[of]
        at = np.where(place == 0, asked.ends[0, of], asked.ends[1, of])
        inner = (place > 0) & (place < parts[of])
        at[inner] = region.narrow(cuts[inner])
        left = np.flatnonzero(place < parts[of])
        left = left[cuts[left + 1] - cuts[left] > 1]
        first, last, ends = (
            cuts[left],
            cuts[left + 1],
            np.stack([at[left], at[left + 1]]),
        )
        return Gaps(
            cuts[inner],
            at[inner],
            np.append(rest.first, first),
            np.append(rest.last, last),
            np.append(rest.ends, ends, axis=1),
            np.append(rest.bound, region.between(first, last, ends)),
        )

    def parts(self, order: int, allowed: float) -> IntArray:
        """Into how many parts each gap is cut so that their bounds may be allowed."""
        top = np.clip(self.ends.max(axis=0), 1e-300, 1.0)
        room = np.log(max(allowed, 1e-300) / top)
        with np.errstate(divide="ignore", invalid="ignore"):
            number = (np.log(self.bound / top) / room) ** (1 / order)
        # Where an end is as large as allowed no number will do: a few at a time.
        number = np.where(room > 0, np.ceil(number), _MOST_PARTS // 8)
        most = np.minimum(self.last - self.first, _MOST_PARTS)
        return np.clip(number, 2, most).astype(np.int64)
