"""The tables of two rates that a line's statistic calls extreme, and their probability.

For each number of hits of the smaller sample `TwoRates` knows from how many of the
other on a table is in the region {z <= observed}; then a probability is one sum over
the smaller sample. Ceilings of cells are probabilities at the worst corner, and between
two cells they are bounded by convexity (docs/mathematical_foundations.md, section 3):
for any set of tables log P + n1 log(1 + e^u) + n0 log(1 + e^v) is convex in the rates'
logits (u, v), as log sum exp is.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, lru_cache

import numpy as np

from safescale_ammt.binomial.cells import Array, BoolArray, IntArray, Span
from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.windows import Windows, largest_variance, rows

# Masses per array operation: as many as a processor's own memory holds.
_BLOCK = 1 << 16
# Points of the contour from which borders are guessed.
_NODES = 64
# Tables that cost as much as a call of the statistic.
_TABLES = 1024
# Sums of masses err by less, which counts where they are next to nothing.
_ROUNDING = 1e-12
# Tables with one statistic in exact arithmetic differ in the last digits. Counting
# near-ties as ties enlarges the region, so that the p-value errs upward.
TIE = 1e-9


class TwoRates:
    """The tables {z <= observed} of a line, for the cells of a span.

    `least[a]` is where the region begins for `a` hits of the smaller sample: the least
    x0 in it for every x1, or the least number of x1's failures for every x0. So the
    arrays are as long as the smaller sample's window, whatever the other size.
    """

    order = 2

    def __init__(self, line: Line, z: float, span: Span) -> None:
        self.line, self.span, self.first_small = line, span, line.n1 <= line.n0
        ends = np.array([span.first, span.last]) / span.grid
        p0 = line.nuisance(ends)
        # The second sample is counted so that more of it means "below the line".
        rates = (line.p1(p0), p0) if self.first_small else (p0, 1 - line.p1(p0))
        sizes = (line.n1, line.n0) if self.first_small else (line.n0, line.n1)
        self.small = Windows(sizes[0], *rates[0])
        self.large = Windows(sizes[1], *rates[1])

        def within(a: IntArray, hits: IntArray) -> BoolArray:
            table = (a, hits) if self.first_small else (line.n1 - hits, a)
            return np.asarray(line.statistic(*table) <= z + TIE)

        x1, x0 = line.contour(z, _NODES + len(self.small.x) // 8)
        # The border rises with x1 and falls with x0.
        along, hits = (x1, x0) if self.first_small else (x0, line.n1 - x1)
        guess = np.interp(self.small.x, np.maximum.accumulate(along), hits)
        least = border(within, self.small.x, self.large.n, np.ceil(guess))
        # Monotone in exact arithmetic; ties broken by rounding must not undo that,
        # since the bounds of cells rest on it. A larger region errs upward.
        step = -1 if self.first_small else 1
        self.least = np.minimum.accumulate(least[::step])[::step]

    def narrow(self, cells: IntArray) -> Array:
        """Ceilings of single cells of the span's grid, (c,)."""
        return self.ceiling(cells / self.span.grid, (cells + 1) / self.span.grid)

    def ceiling(self, left: Array, right: Array) -> Array:
        """P(region) at the worst corner: p1 at the cell's left end, p0 at its right."""
        p1 = self.line.p1(self.line.nuisance(left))
        p0 = self.line.nuisance(right)
        small, large = (p1, p0) if self.first_small else (p0, 1 - p1)
        parts = []
        block = max(1, _BLOCK // (len(self.small.x) + self.large.width))
        for i in range(0, len(p1), block):
            p, q = small[i : i + block], large[i : i + block]
            start, width = self.small.places(p, p)
            begin, length = self.large.places(q, q)
            mass = self.small.masses(start, width, p)
            # Below each value, so that the last is all that the window holds.
            below = np.zeros((len(q), length + 1))
            np.cumsum(self.large.masses(begin, length, q), axis=1, out=below[:, 1:])
            column = rows(self.least, start, width) - self.large.x[begin][:, None]
            column = np.clip(column, 0, length, out=column)
            column += np.arange(len(q))[:, None] * (length + 1)
            held = below[:, -1:]
            inside = mass * (held - below.ravel()[column])
            # What lies outside the windows counts as inside the region: the sum is
            # never too small.
            missing = 2 - mass.sum(axis=1) - held[:, 0]
            parts.append(inside.sum(axis=1) + np.maximum(missing, 0.0))
        return np.concatenate([np.zeros(0), *parts])

    @cached_property
    def corners(self) -> tuple[Array, Array, Array]:
        """The worst corners of the span's cells: rates (2, c), their logits, turns.

        The turns (c,) add up how much steeper the way through the corners, p1's logit
        over p0's, becomes from one to the next.
        """
        (low, high), span = self.line.ends, self.span
        p0 = low + (high - low) * shares(int(span.first), int(span.last), span.grid)
        rates = np.stack([self.line.p1(p0[:-1]), p0[1:]])
        inner = np.clip(rates, 1e-300, 1 - 1e-16)
        logits = np.log(inner) - np.log1p(-inner)
        turns = np.zeros(len(p0) - 1)
        if len(p0) > 3:
            with np.errstate(divide="ignore", invalid="ignore"):
                bends = np.diff(np.divide(*np.diff(logits)))
            np.cumsum(np.maximum(bends, 0.0), out=turns[1:-1])
            turns[-1] = turns[-2]
        return rates, logits, turns

    def between(self, first: IntArray, last: IntArray, ends: Array) -> Array:
        """Upper bounds of the ceilings of all cells between two, (c,).

        Args:
            first: a cell (c,).
            last: a later cell (c,).
            ends: the ceilings of both (2, c).
        """
        rates, logits, turns = self.corners
        i, j = first - self.span.first, last - self.span.first
        low, high = rates[:, i], rates[:, j]
        widest = largest_variance(low, high)
        rise = logits[:, j] - logits[:, i]
        with np.errstate(over="ignore", invalid="ignore"):
            dip = rise[1] / 4 * (turns[j - 1] - turns[i])
            variance = np.array([[self.line.n1], [self.line.n0]]) * widest
            variance[0] *= np.exp(dip)
            root = np.sqrt(ends + _ROUNDING) + 0.5 * dip * np.sqrt(variance[0])
            lifted = 2 * np.log(root)
            bend = (variance * rise**2).sum(axis=0)
            apart = lifted[1] - lifted[0]
            s = np.clip(0.5 + apart / np.maximum(bend, 1e-300), 0, 1)
            bound: Array = np.exp(lifted[0] + s * apart + bend * s * (1 - s) / 2)
        return np.where(bound < 1, bound, 1.0)


@lru_cache(maxsize=4)
def shares(first: int, last: int, grid: int) -> Array:
    """How far through the nuisance rates the ends of these cells lie (`nuisance`)."""
    return np.asarray(np.sin(0.5 * np.pi * (np.arange(first, last + 1) / grid)) ** 2)


def border(
    within: Callable[[IntArray, IntArray], BoolArray],
    a: IntArray,
    top: int,
    guess: Array,
) -> IntArray:
    """Least hits from 0 on with `within(a, hits)`, `top` + 1 where there are none.

    Exact whatever the guess (k,), if all hits above the border are within.
    """
    outside, inside = np.full(len(a), -1), np.full(len(a), top + 1)
    start = np.clip(guess, 0, top).astype(np.int64)
    open_, rounds = np.arange(len(a)), 0
    while len(open_):
        low, high = outside[open_], inside[open_]
        # A good guess is the border or next to it: its neighbour settles that.
        asked = np.where(start[open_] == high, high - 1, low + 1)[:, None]
        if rounds == 0:
            asked = start[:, None]
        elif rounds > 1:
            # One call costs as much as hundreds of tables.
            parts = max(2, min(16, _TABLES // len(open_)))
            asked = low[:, None] + (high - low)[:, None] * np.arange(1, parts) // parts
            asked = np.maximum(asked, low[:, None] + 1)
        hit = within(np.repeat(a[open_], asked.shape[1]), asked.ravel())
        hit = hit.reshape(asked.shape)
        first = np.where(hit.any(axis=1), hit.argmax(axis=1), asked.shape[1])
        steps, row = np.column_stack([low, asked, high]), np.arange(len(open_))
        outside[open_], inside[open_] = steps[row, first], steps[row, first + 1]
        open_, rounds = open_[inside[open_] - outside[open_] > 1], rounds + 1
    return inside
