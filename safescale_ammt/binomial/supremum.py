"""The largest probability of a set of tables over a nuisance rate, from above.

An exact test of two rates (`exact`) or of two models on the same rows (`paired`)
orders its tables by a statistic z, small z speaking for what is to be shown, and

    p-value = sup over the nuisance rate t of P(z(table) <= z observed | t) + spent

The set {z <= z observed} is monotone, hence its probability over a cell [a, b] of t
has an upper bound that is attained up to first order in b - a: a finite number of
cells gives a *proven* upper bound of the supremum. Cells are halved until the
question is settled or they are as narrow as the test's grid.

Which t are searched: all (`spent` = 0, Chan and Zhang 1999), or those of an exact
interval that misses the true t with probability at most `spent` (Berger and Boos
1994, JASA 89:1012). The second p-value is as valid as the first, whatever the table:
where it is <= level, either the interval has missed, or the supremum over it, and so
the probability at the true t, is <= level - spent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]

SPENT = 1e-7
"""Chance that the interval of the nuisance rate misses: no level below it shows."""
ROUNDED = 0.005
"""Where many tables are tested at once, z is rounded up to multiples of this."""
# Smaller p-values are reported as this: the masses outside the windows and rounding
# decide their digits.
_LEAST_P = 1e-9
_FIRST_CELLS = 64
# Corners are asked for a wide cell only: deeper ones seldom settle what those did not.
_CORNER_ROUNDS = 3


class Region(Protocol):
    """The tables {z <= observed}, and bounds of their probability on cells of t."""

    def ceiling(self, left: Array, right: Array) -> Array:
        """Upper bounds on [left, right], shape (c,), exact where left is right."""

    def floor(self, left: Array, right: Array) -> Array:
        """Lower bounds on [left, right], shape (c,)."""


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

    def of(self, which: NDArray[np.bool_]) -> Span:
        """The one span that holds those of all these tables."""
        first, last = self.first[which].min(), self.last[which].max()
        return Span(first, last, self.grid, self.spent)


RegionAt = Callable[[float, Span], Region]
"""Makes the region of an observed z, for nuisance rates within a span."""


def span_of(low: Array, high: Array, grid: int) -> Span:
    """Cells of the grid that hold intervals [low, high] of t, none if low > high."""
    first = np.minimum(np.floor(low * grid), grid - 1).astype(np.int64)
    last = np.maximum(np.ceil(high * grid).astype(np.int64), first + (low <= high))
    return Span(first, np.minimum(last, grid), grid, SPENT)


def rejects(region: Region, span: Span, level: float) -> bool:
    """Tells whether the p-value over the span is at most `level`.

    Same answer as `supremum(region, span) <= level`, but stops as soon as it is known.
    """
    allowed, cells = level - span.spent, _coarse(span)
    if allowed < 0:
        return False
    rounds = 0
    while len(cells) > 0:
        left, right = cells.T / span.grid
        cells = cells[region.ceiling(left, right) > allowed]
        if np.any(cells[:, 1] - cells[:, 0] == 1):
            return False
        # The probability at a corner is attained: one above the level settles it.
        corners = cells[:, 0] / span.grid
        early = rounds < _CORNER_ROUNDS
        if early and np.any(region.ceiling(corners, corners) > allowed):
            return False
        rounds, cells = rounds + 1, _halve(cells)
    return True


def supremum(region: Region, span: Span, refine_below: float = 0.5) -> float:
    """Conservative p-value over the span, too large by a few % of itself.

    Values certainly above `refine_below` are returned as coarse upper bounds.
    """
    cells, found, reached = _coarse(span), 0.0, 0.0
    rounds = 0
    while len(cells) > 0:
        left, right = cells.T / span.grid
        bound = region.ceiling(left, right)
        if rounds < _CORNER_ROUNDS:
            reached = max(reached, float(region.ceiling(left, left).max()))
        narrow = cells[:, 1] - cells[:, 0] == 1
        if reached > refine_below or bound.max() < _LEAST_P or narrow.all():
            found = max(found, float(bound.max()))
            break
        found = max(found, float(bound[narrow].max(initial=0.0)))
        # A cell whose bound lies below an attained value cannot hold the supremum;
        # the margin keeps rounding from dropping the cell that does.
        near = ~narrow & (bound >= max(reached, found) * (1 - 1e-6) - _LEAST_P)
        rounds, cells = rounds + 1, _halve(cells[near])
    return float(np.clip(found, _LEAST_P, 1.0)) + span.spent


def shown(
    region_at: RegionAt, z: Array, spans: Span, level: float
) -> NDArray[np.bool_]:
    """Tells which of many tables are shown at the level, z and spans of shape (k,).

    The probability rises with z: a cell that is too probable at one table's z is so
    for every larger z, and one that is not, for no smaller z. With one span for all,
    that is a bisection; else tables are settled by the cells of their own spans, and
    z is rounded up to multiples of `ROUNDED` unless there is one table alone.
    """
    result, open_ = np.zeros(z.shape, dtype=bool), (z < 0) & (level >= spans.spent)
    if open_.sum() > 1 and spans.spent:
        z = np.ceil(z / ROUNDED) * ROUNDED
    rounds = 0
    while open_.any():
        values = np.unique(z[open_])
        # The ends come first: often all or none are shown, and that is cheap to know.
        at = float(values[(0, -1)[rounds] if rounds < 2 else len(values) // 2])
        hull, rounds = spans.of(open_), rounds + 1
        region = region_at(at, hull)
        if np.all((spans.first == hull.first) & (spans.last == hull.last) | ~open_):
            misses = np.full(z.shape, not rejects(region, hull, level))
        else:
            # Too probable cells before each, so that a difference counts those within.
            count = np.cumsum([0, *_probable(region, hull, level)])
            ends = np.array([spans.first, spans.last]) - hull.first
            before, until = count[np.clip(ends, 0, len(count) - 1)]
            misses = until > before
        result |= open_ & (z <= at) & ~misses
        open_ &= np.where(misses, z < at, z > at)
    return result


def _probable(region: Region, span: Span, level: float) -> NDArray[np.bool_]:
    """Tells which cells of one span have a ceiling above the level."""
    allowed, cells = level - span.spent, _coarse(span)
    above = np.zeros(span.last - span.first, dtype=bool)
    while len(cells) > 0:
        left, right = cells.T / span.grid
        high = region.ceiling(left, right) > allowed
        cells, left, right = cells[high], left[high], right[high]
        # Of a cell that is too probable throughout every part is.
        sure = cells[:, 1] - cells[:, 0] == 1
        sure[~sure] = region.floor(left[~sure], right[~sure]) > allowed
        for first, last in cells[sure] - span.first:
            above[first:last] = True
        cells = _halve(cells[~sure])
    return above


def _coarse(span: Span) -> IntArray:
    """Cells (c, 2) of about equal width that fill the span."""
    width = int(span.last - span.first)
    number = min(_FIRST_CELLS, width)
    # Whole numbers: however a span is halved, its narrowest cells are the grid's.
    ends = span.first + np.arange(number + 1) * width // max(1, number)
    return np.stack([ends[:-1], ends[1:]], axis=1)


def _halve(cells: IntArray) -> IntArray:
    left, right = cells.T
    middle = (left + right) // 2
    halves = np.concatenate([np.stack([left, middle], 1), np.stack([middle, right], 1)])
    return halves[halves[:, 0] < halves[:, 1]]


def rate_limits(x: IntArray, n: int, tail: float) -> tuple[Array, Array]:
    """Clopper and Pearson's limits (1934) of rates, (k,), each one-sided at `tail`."""
    values, place = np.unique(x, return_inverse=True)
    # P(X >= x | n, p) is the regularised incomplete beta function I_p(x, n - x + 1);
    # 1 and 0 for it where there is no such limit.
    some, most = np.maximum(values, 1), np.minimum(values, n - 1)
    low = np.where(values > 0, betaincinv(some, n - some + 1, tail), 0.0)
    high = np.where(values < n, betaincinv(most + 1, n - most, 1 - tail), 1.0)
    return low[place], high[place]
