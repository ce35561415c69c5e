"""The largest probability of a set of tables over a nuisance rate, from above.

An exact test of two rates (`exact`) or of two models on the same rows (`paired`)
orders its tables by a statistic z, small z speaking for what is to be shown, and

    p-value = sup over the nuisance rate t of P(z(table) <= z observed | t) + spent

The set {z <= z observed} is monotone, hence its probability over a cell [a, b] of t
has an upper bound, its ceiling, that is attained up to first order in b - a: the
largest ceiling of a finite number of cells is a *proven* upper bound of the supremum.
Between known cells all others are bounded at once, to second order (`cells`), so that
few are asked for.

Which t are searched: all (`spent` = 0, Chan and Zhang 1999), or those of an exact
interval that misses the true t with probability at most `spent` (Berger and Boos
1994, JASA 89:1012). The second p-value is as valid as the first, whatever the table:
where it is <= level, either the interval has missed, or the supremum over it, and so
the probability at the true t, is <= level - spent.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.special import ndtri

from safescale_ammt.binomial.cells import (
    Array,
    BoolArray,
    Gaps,
    Region,
    Span,
)

ROUNDED = 0.005
"""Where many tables are tested at once, z is rounded up to multiples of this."""
# Smaller p-values are reported as this: the masses outside the windows and rounding
# decide their digits.
_LEAST_P = 1e-9
_COARSE_CELLS = 64
# Wide cells decide what is told of a p-value that need not be refined.
_COARSE_ROUNDS = 3
_STRAIGHT_STEPS = 3

RegionAt = Callable[[float, Span], Region]
"""Makes the region of an observed z, for nuisance rates within a span."""


def rejects(region: Region, span: Span, level: float) -> bool:
    """Tells whether the p-value over the span is at most `level`."""
    one = Span(np.array([span.first]), np.array([span.last]), span.grid, span.spent)
    return not exceeded(region, one, level)[0].any()


def exceeded(region: Region, spans: Span, level: float) -> tuple[BoolArray, int]:
    """Tells which of many spans (k,) hold a cell whose ceiling is above the level.

    Returns:
        Which, and of the cells that were asked for one with the largest ceiling.
    """
    order, allowed = np.argsort(spans.first), level - spans.spent
    gaps = Gaps.over(region, spans.of(spans.first >= 0))
    cells, values = gaps.cells, gaps.values
    while True:
        above = np.sort(cells[values > allowed])
        before, until = np.searchsorted(above, [spans.first, spans.last])
        # Spans with such a cell are settled; what the others do not hold is not asked.
        rest = spans.only(
            order[((until == before) & (spans.first < spans.last))[order]]
        )
        held = gaps.meet(rest.first, rest.last)
        gaps = gaps.kept(held & (gaps.bound > allowed))
        if not len(gaps.bound):
            worst = cells[np.argmax(values)] if len(cells) else spans.first[0]
            return until > before, int(worst)
        gaps = gaps.divided(region, allowed)
        cells, values = np.append(cells, gaps.cells), np.append(values, gaps.values)


def supremum(region: Region, span: Span, refine_below: float = 0.5) -> float:
    """Conservative p-value over the span, too large by a few % of itself.

    Values certainly above `refine_below` are returned as coarse upper bounds.
    """
    width, reached = int(span.last - span.first), 0.0
    number = min(_COARSE_CELLS, width)
    ends = span.first + np.arange(number + 1) * width // max(1, number)
    cells = np.stack([ends[:-1], ends[1:]], axis=1)
    for _ in range(_COARSE_ROUNDS):
        left, right = cells.T / span.grid
        bound = region.ceiling(left, right)
        most = float(bound.max(initial=0.0))
        reached = max(reached, float(region.ceiling(left, left).max(initial=0.0)))
        narrow = cells[:, 1] - cells[:, 0] <= 1
        if reached > refine_below or most < _LEAST_P or narrow.all():
            break
        # A cell whose bound lies below an attained value cannot hold the supremum.
        first, last = cells[bound >= reached * (1 - 1e-6) - _LEAST_P].T
        middle = (first + last) // 2
        cells = np.array([(*first, *middle), (*middle, *last)]).T
        cells = cells[cells[:, 0] < cells[:, 1]]
    else:
        most = peak(region, span, max(reached, _LEAST_P))
    return float(np.clip(most, _LEAST_P, 1.0)) + span.spent


def peak(region: Region, span: Span, floor: float) -> float:
    """Largest ceiling of the span's cells, `floor` if none is larger."""
    gaps, best = Gaps.over(region, span), floor
    while True:
        best = max(best, float(gaps.values.max(initial=0.0)))
        gaps = gaps.kept(gaps.bound > best)
        if not len(gaps.bound):
            return best
        gaps = gaps.divided(region, best)


def shown(region_at: RegionAt, z: Array, spans: Span, level: float) -> BoolArray:
    """Tells which of many tables are shown at the level, z and spans of shape (k,).

    The probability rises with z: a cell that is too probable at one table's z is so
    for every larger z, and one that is not, for no smaller z. Tables are settled by the
    cells of their own spans, and unless all rates are searched z is rounded up to
    multiples of `ROUNDED`, if there is more than one table.
    """
    result, open_ = np.zeros(z.shape, dtype=bool), (z < 0) & (level > spans.spent)
    if open_.sum() > 1 and spans.spent:
        z = np.ceil(z / ROUNDED) * ROUNDED
    asked: list[int] = []
    worst, searches = -1, 0
    while open_.any():
        values = np.unique(z[open_])
        cell = common_cell(spans, open_, worst, asked)
        if cell >= 0:
            # Of one cell all is soon known; the rest is asked at what is within it.
            asked.append(cell)
            held = open_ & spans.hold(cell)
            at = largest_within(region_at, cell, np.unique(z[held]), spans, level)
            open_ &= ~held | (z <= at)
            if at == -math.inf:
                continue
        else:
            # The ends come first: often all or none are shown.
            at = float(values[(-1, 0)[searches] if searches < 2 else len(values) // 2])
            searches += 1
        misses = np.zeros(z.shape, dtype=bool)
        region = region_at(at, spans.of(open_))
        misses[open_], worst = exceeded(region, spans.only(open_), level)
        result |= open_ & (z <= at) & ~misses
        open_ &= np.where(misses, z < at, z > at)
    return result


def common_cell(spans: Span, open_: BoolArray, worst: int, asked: list[int]) -> int:
    """A cell not yet asked for that at least half of the open spans hold, else -1.

    Args:
        spans: one span for each table.
        open_: which tables are not settled.
        worst: the cell that was most probable, if any was.
        asked: cells that were asked for.
    """
    if open_.sum() > 1:
        middle = np.median((spans.first[open_] + spans.last[open_]) // 2)
        for cell in (worst, int(middle)):
            held = spans.hold(cell)[open_].sum()
            if cell not in asked and 2 * held >= open_.sum():
                return cell
    return -1


def largest_within(
    region_at: RegionAt, cell: int, values: Array, spans: Span, level: float
) -> float:
    """Largest of sorted z values at which one cell is within the level, else -inf."""
    asked, allowed = np.array([cell]), level - spans.spent
    at = Span(asked, asked + 1, spans.grid).of(asked == cell)
    low, high, step, rounds = -1, len(values), 2, 0
    # It lies near the normal law's, and there the logarithm is nearly straight.
    tail = min(allowed, 0.5)
    guess = float(ndtri(tail))
    slope = math.exp(-(guess**2) / 2) / math.sqrt(2 * math.pi) / tail
    while high - low > 1:
        middle = (low + high) // 2
        if rounds < _STRAIGHT_STEPS:
            middle = int(np.searchsorted(values, guess))
        elif low < 0 or high == len(values):
            middle, step = (high - step if low < 0 else low + step), 4 * step
        middle = min(max(middle, low + 1), high - 1)
        region = region_at(float(values[middle]), at)
        ceiling = float(region.narrow(asked)[0])
        low, high = (middle, high) if ceiling <= allowed else (low, middle)
        guess = float(values[middle]) + math.log(allowed / max(ceiling, 1e-300)) / slope
        rounds += 1
    return float(values[low]) if low >= 0 else -math.inf
