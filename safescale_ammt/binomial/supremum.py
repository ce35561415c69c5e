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

import math
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
# Gaps that are divided at once, and the parts of one.
_ASKED, _MOST_PARTS = 32, 32


class Region(Protocol):
    """The tables {z <= observed}, and bounds of their probability on cells of t."""

    order: int
    """Power of a gap's width with which `between` exceeds the truth."""

    def ceiling(self, left: Array, right: Array) -> Array:
        """Upper bounds on [left, right], shape (c,), exact where left is right."""

    def narrow(self, cells: IntArray) -> Array:
        """The ceilings of single cells of the grid, (c,)."""

    def between(self, first: IntArray, last: IntArray, ends: Array) -> Array:
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

    def of(self, which: NDArray[np.bool_]) -> Span:
        """The one span that holds those of all these tables."""
        first, last = self.first[which].min(), self.last[which].max()
        return Span(first, last, self.grid, self.spent)


@dataclass(frozen=True)
class Gaps:
    """Stretches of cells between two whose ceilings are known, and bounds of theirs.

    Attributes:
        cells: cells that were asked for last, with their ceilings `values`.
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
        steps = min(_FIRST_CELLS, int(span.last - span.first) - 1)
        cells = span.first + np.arange(steps + 1) * (span.last - 1 - span.first) // max(
            1, steps
        )
        values = region.narrow(cells)
        ends = np.stack([values[:-1], values[1:]])
        bound = region.between(cells[:-1], cells[1:], ends)
        return cls(cells, values, cells[:-1], cells[1:], ends, bound)

    def kept(self, which: NDArray[np.bool_]) -> Gaps:
        """Only these gaps, and of them those that hold a cell."""
        which = which & (self.last - self.first > 1)
        of = self.first[which], self.last[which], self.ends[:, which]
        return Gaps(self.cells, self.values, *of, self.bound[which])

    def divided(self, region: Region, allowed: float) -> Gaps:
        """Asks for cells within the gaps with the largest bounds."""
        worst = np.zeros(len(self.bound), dtype=bool)
        worst[np.argsort(-self.bound)[:_ASKED]] = True
        asked, rest = self.kept(worst), self.kept(~worst)
        width, top = asked.last - asked.first, asked.ends.max(axis=0)
        # So many that the bounds of the parts may be expected within the level.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.log(asked.bound / top) / np.log(allowed / top)
        parts = np.where(ratio > 1, ratio, _MOST_PARTS**region.order) ** (1 / region.order)
        parts = np.clip(np.ceil(parts), 2, np.minimum(width, _MOST_PARTS)).astype(int)
        of = np.repeat(np.arange(len(parts)), parts + 1)
        place = np.arange(len(of)) - np.repeat(np.cumsum(parts + 1) - parts - 1, parts + 1)
        cuts = asked.first[of] + width[of] * place // parts[of]
        at = np.where(place == 0, asked.ends[0][of], asked.ends[1][of])
        inner = (place > 0) & (place < parts[of])
        at[inner] = region.narrow(cuts[inner])
        left = np.flatnonzero(place < parts[of])
        first, last = cuts[left], cuts[left + 1]
        ends = np.stack([at[left], at[left + 1]])
        open_ = last - first > 1
        first, last, ends = first[open_], last[open_], ends[:, open_]
        return Gaps(
            cuts[inner],
            at[inner],
            np.append(rest.first, first),
            np.append(rest.last, last),
            np.append(rest.ends, ends, axis=1),
            np.append(rest.bound, region.between(first, last, ends)),
        )


def peak(region: Region, span: Span, floor: float) -> float:
    """Largest ceiling of the span's cells, `floor` if none is larger."""
    gaps, best = Gaps.over(region, span), floor
    while True:
        best = max(best, float(gaps.values.max(initial=0.0)))
        gaps = gaps.kept(gaps.bound > best)
        if not len(gaps.bound):
            return best
        gaps = gaps.divided(region, best)


RegionAt = Callable[[float, Span], Region]
"""Makes the region of an observed z, for nuisance rates within a span."""


def span_of(low: Array, high: Array, grid: int) -> Span:
    """Cells of the grid that hold intervals [low, high] of t, none if low > high."""
    first = np.minimum(np.floor(low * grid), grid - 1).astype(np.int64)
    last = np.maximum(np.ceil(high * grid).astype(np.int64), first + (low <= high))
    return Span(first, np.minimum(last, grid), grid, SPENT)


def rejects(region: Region, span: Span, level: float) -> bool:
    """Tells whether the p-value over the span is at most `level`."""
    one = np.array([span.first]), np.array([span.last])
    return not exceeded(region, Span(*one, span.grid, span.spent), level)[0][0]


def exceeded(
    region: Region, spans: Span, level: float
) -> tuple[NDArray[np.bool_], int]:
    """Tells which of many spans (k,) hold a cell whose ceiling is above the level.

    Returns:
        Which, and of the cells asked for the one that is most probable.
    """
    hull, allowed = spans.of(np.ones(len(spans.first), dtype=bool)), level - spans.spent
    gaps, origin = Gaps.over(region, hull), hull.first
    ends = np.array([spans.first, spans.last]) - origin
    alike, size = np.ptp(ends, axis=1).max() == 0, hull.last - origin + 1
    found, high = np.zeros(ends.shape[1], dtype=bool), np.zeros(size, dtype=np.int64)
    worst, most = int(origin), 0.0
    while True:
        above = gaps.values > allowed
        if gaps.values.max(initial=0.0) > most:
            most = float(gaps.values.max())
            worst = int(gaps.cells[np.argmax(gaps.values)])
        wanted = gaps.bound > allowed
        if alike:
            found |= above.any()
            wanted &= ~found[0]
        else:
            # The cells before each cell that are above, so that a difference tells.
            high[gaps.cells[above] + 1 - origin] = 1
            before, until = np.cumsum(high)[ends]
            found = until > before
            # Where spans without such a cell lie: only there cells are asked for.
            left, right = (np.bincount(e, minlength=size) for e in ends[:, ~found])
            cover = np.cumsum(np.append(0, np.cumsum(left - right) > 0))
            wanted &= cover[gaps.last - origin] > cover[gaps.first + 1 - origin]
        gaps = gaps.kept(wanted)
        if not len(gaps.bound):
            return found, worst
        gaps = gaps.divided(region, allowed)


def supremum(region: Region, span: Span, refine_below: float = 0.5) -> float:
    """Conservative p-value over the span, too large by a few % of itself.

    Values certainly above `refine_below` are returned as coarse upper bounds.
    """
    cells, found, reached = _coarse(span), 0.0, 0.0
    for _ in range(_CORNER_ROUNDS):
        left, right = cells.T / span.grid
        bound = region.ceiling(left, right)
        reached = max(reached, float(region.ceiling(left, left).max()))
        narrow = cells[:, 1] - cells[:, 0] == 1
        if reached > refine_below or bound.max() < _LEAST_P or narrow.all():
            found = max(found, float(bound.max()))
            break
        found = max(found, float(bound[narrow].max(initial=0.0)))
        near = ~narrow & (bound >= max(reached, found) * (1 - 1e-6) - _LEAST_P)
        cells = _halve(cells[near])
        if not len(cells):
            break
    else:
        found = peak(region, span, max(found, reached, _LEAST_P))
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
    if not open_.any():
        return result
    cell = int(spans.of(open_).first + spans.of(open_).last) // 2
    while open_.any():
        values = np.unique(z[open_])
        at = float(values[len(values) // 2])
        # Of one cell all of this is known soon; what is within it is asked of the rest.
        held = open_ & (spans.first <= cell) & (cell < spans.last)
        if len(values) > 1 and 2 * held.sum() >= open_.sum():
            at = largest_within(region_at, cell, np.unique(z[held]), spans, level)
            open_ &= ~held | (z <= at)
        if not open_.any():
            break
        at = max(at, float(z[open_].min()))
        hull = spans.of(open_)
        part = Span(spans.first[open_], spans.last[open_], spans.grid, spans.spent)
        misses = np.zeros(z.shape, dtype=bool)
        misses[open_], cell = exceeded(region_at(at, hull), part, level)
        result |= open_ & (z <= at) & ~misses
        open_ &= np.where(misses, z < at, z > at)
    return result


def largest_within(
    region_at: RegionAt, cell: int, values: Array, spans: Span, level: float
) -> float:
    """Largest of sorted z values at which one cell is within the level, else -inf."""
    at, asked = Span(np.int64(cell), np.int64(cell + 1), spans.grid), np.array([cell])
    low, high = -1, len(values)
    # The largest comes first: often all are within, and that is soon known.
    middle = high - 1
    while high - low > 1:
        ceiling = region_at(float(values[middle]), at).narrow(asked)
        within = bool(ceiling[0] <= level - spans.spent)
        low, high = (middle, high) if within else (low, middle)
        middle = (low + high) // 2
    return float(values[low]) if low >= 0 else -math.inf


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
