"""Exact unconditional tests of two binomial rates, after Chan and Zhang (1999).

The question is always the same: do x1 of n1 and x0 of n0 show that p1 lies below
a *line* through p0? There are two kinds of line:

    difference   p1 = p0 + line        ratio   p1 = line * p0

Tables are ordered by the score statistic z (Miettinen and Nurminen 1985; small z
speaks for "below"). The set {z <= z observed} is monotone (with a table it holds
every table with fewer x1 or more x0), hence its probability falls in p1 and rises
in p0. Two things follow. The supremum over the whole null hypothesis "p1 on or above
the line" sits on the line. And over a cell [a, b] of p0 the probability is at most
P(set | p1 = line(a), p0 = b), which is the bound that `supremum` asks for.

The nuisance rate is p0 (on the line p1 follows from it). In small samples all of it
is searched; in larger ones the intersection of two Clopper-Pearson intervals, from
x0 for p0 and from x1 for p1. Off the line that is valid too: if p1 lies above
line(p0) and both intervals hold their rates, then each q between p0 and the rate whose
line is p1 makes {z <= z observed} at least as probable as the truth does, and one of
them lies in both intervals unless these are apart, which z < 0 then excludes
(docs/mathematical_foundations.md, section 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.cells import (
    SPENT,
    Array,
    IntArray,
    Span,
    rate_limits,
    span_of,
)
from safescale_ammt.binomial.windows import Windows, largest_variance, rows
from safescale_ammt.errors import InputError

Kind = Literal["difference", "ratio"]

WHOLE_UP_TO = 5_000
"""Trials of both samples together up to which all nuisance rates are searched."""
# Cells in z: the normal tail at 1.645 falls by 2 % for .01.
_FINE, _WIDE = 0.01, 0.015
# Masses per array operation: bounds memory at a few megabytes, whatever the sizes.
_BLOCK = 1 << 19
_NODES = 64
_TABLES = 1024
# Tables with one statistic in exact arithmetic differ in the last digits. Counting
# near-ties as ties enlarges the region, so that the p-value errs upward.
TIE = 1e-9


@dataclass(frozen=True)
class Line:
    """A line through p0 that p1 is compared with.

    Attributes:
        kind: `difference` (p1 = p0 + at) or `ratio` (p1 = at * p0).
        at: offset in [-1, 1], or factor >= 0 (infinity included).
        n1: size of the first sample.
        n0: size of the second sample.
    """

    kind: Kind
    at: float
    n1: int
    n0: int

    def __post_init__(self) -> None:
        """Checks that it is a line between samples: of any other all would be shown.

        Raises:
            InputError: not a number, a ratio below 0, or a negative size.
        """
        least = 0.0 if self.kind == "ratio" else -math.inf
        if not self.at >= least or min(self.n1, self.n0) < 0:
            raise InputError(f"No line between two rates is {self}.")

    @property
    def swapped(self) -> Line:
        """The same line with the samples in the other order."""
        if self.kind == "difference":
            at = -self.at
        else:
            # p1 = at p0 reads p0 = p1 / at; a ratio of 0 has no finite inverse.
            at = 1 / self.at if self.at > 0 else math.inf
        return Line(self.kind, at, self.n0, self.n1)

    @property
    def trivial(self) -> bool:
        """Whether all pairs of rates lie on one side of it: nothing is to be tested."""
        if self.kind == "difference":
            return abs(self.at) >= 1
        return not 0 < self.at < math.inf

    def p1(self, p0: Array) -> Array:
        """Returns the first rate on the line."""
        rate = p0 + self.at if self.kind == "difference" else p0 * self.at
        return np.clip(rate, 0.0, 1.0)

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest p0 whose p1 is a rate."""
        if self.kind == "difference":
            return max(0.0, -self.at), min(1.0, 1.0 - self.at)
        return 0.0, min(1.0, 1.0 / self.at)

    def nuisance(self, t: Array) -> Array:
        """Maps t in [0, 1] to all p0 whose p1 is a rate, dense at both ends.

        The arcsine scale makes steps of t about equally many standard errors.
        """
        low, high = self.ends
        share: Array = np.sin(0.5 * np.pi * t) ** 2
        return low + (high - low) * share

    def statistic(self, x1: Any, x0: Any) -> Array:
        """Score statistic z of tables on this line (Miettinen and Nurminen 1985).

        z = (p1^ - line(p0^)) / sqrt(variance at the restricted MLE * N / (N - 1));
        0 where both numerator and variance vanish.
        """
        x1 = np.asarray(x1, dtype=np.float64)
        x0 = np.asarray(x0, dtype=np.float64)
        n1, n0, at = float(self.n1), float(self.n0), self.at
        if self.kind == "difference":
            # The MLE solves MN's cubic (their eq. 27).
            l3 = n1 + n0
            l2 = (n1 + 2 * n0) * at - l3 - x1 - x0
            l1 = (n0 * at - l3 - 2 * x0) * at + x1 + x0
            l0 = x0 * at * (1 - at)
            third = l2 / (3 * l3)
            q = third * third * third - l1 * l2 / (6 * l3**2) + l0 / (2 * l3)
            p = np.sqrt(np.maximum(third * third - l1 / (3 * l3), 0.0))
            # The root has the sign of q (MN): of the cubic's three real solutions this
            # picks the one that is a rate.
            p = np.where(q < 0, -p, p)
            cube = np.where(p == 0, 1.0, p * p * p)
            # Rounding takes |q / p^3| above 1 where the cubic has a double root.
            angle = (np.pi + np.arccos(np.clip(q / cube, -1.0, 1.0))) / 3
            p0 = 2 * p * np.cos(angle) - third
            p0 = np.clip(p0, max(0.0, -at), min(1.0, 1.0 - at))
            p1 = np.clip(p0 + at, 0.0, 1.0)
            numerator = x1 / n1 - x0 / n0 - at
            variance = p1 * (1 - p1) / n1 + p0 * (1 - p0) / n0
        else:
            # The MLE solves MN's quadratic (their eq. 29).
            a = (n1 + n0) * at
            b = -(n1 * at + x1 + n0 + x0 * at)
            root = np.sqrt(np.maximum(b * b - 4 * a * (x1 + x0), 0.0))
            p0 = np.clip((-b - root) / (2 * a), 0.0, min(1.0, 1.0 / at))
            p1 = np.clip(p0 * at, 0.0, 1.0)
            numerator = x1 / n1 - at * x0 / n0
            variance = p1 * (1 - p1) / n1 + at * at * p0 * (1 - p0) / n0
        total = self.n1 + self.n0
        scale = np.sqrt(np.maximum(variance, 0.0) * total / (total - 1))
        # All or none hit in both samples: the line alone says on which side they lie.
        flat = scale < 1e-12
        sign = np.where(np.abs(numerator) < 1e-12, 0.0, np.sign(numerator) * 1e12)
        z: Array = np.where(flat, sign, numerator / np.where(flat, 1.0, scale))
        return z

    def contour(self, z: float, nodes: int) -> tuple[Array, Array]:
        """Points (x1, x0) whose statistic is z, by rising restricted MLE.

        On the line at p0 the statistic's equation and the likelihood's are linear in
        the hits. Where no MLE within (0, 1) has them the points are a guess.
        """
        p0 = self.nuisance(np.linspace(0.0, 1.0, nodes + 2)[1:-1])
        p1, slope = self.p1(p0), self.at if self.kind == "ratio" else 1.0
        v1, v0 = p1 * (1 - p1) / self.n1, slope**2 * p0 * (1 - p0) / self.n0
        total = self.n1 + self.n0
        apart = z * np.sqrt((v1 + v0) * total / (total - 1)) / (v1 + v0)
        return self.n1 * (p1 + apart * v1), self.n0 * (p0 - apart * v0 / slope)

    @property
    def whole(self) -> bool:
        """Whether the samples are so small that all nuisance rates are searched."""
        return self.n1 + self.n0 <= WHOLE_UP_TO

    def spans(self, x1: Any, x0: Any) -> Span:
        """The cells of the nuisance scale that are searched, for tables (k,)."""
        x1, x0 = np.asarray(x1), np.asarray(x0)
        # In t the arcsine angle of a rate runs over pi, and z moves by sqrt(harmonic)
        # per unit of angle: cells of .01 in z are 314 times sqrt(harmonic) many.
        n1 = self.n1 * (self.at if self.kind == "ratio" else 1.0)
        harmonic = n1 * self.n0 / (n1 + self.n0)
        cells = math.pi * math.sqrt(harmonic) / (_FINE if self.whole else _WIDE)
        if self.whole:
            grid = 2 ** max(6, math.ceil(math.log2(max(1.0, cells))))
            none = np.zeros(x1.shape, dtype=np.int64)
            return Span(none, none + grid, grid)
        grid = max(64, math.ceil(cells))
        # Two intervals, each with two ends.
        low1, high1 = rate_limits(x1, self.n1, SPENT / 4)
        low0, high0 = rate_limits(x0, self.n0, SPENT / 4)
        if self.kind == "difference":
            low1, high1 = low1 - self.at, high1 - self.at
        else:
            low1, high1 = low1 / self.at, high1 / self.at
        low, high = np.maximum(low1, low0), np.minimum(high1, high0)
        low, high = self.scale(low), np.where(low <= high, self.scale(high), -1.0)
        return span_of(low, high, grid)

    def scale(self, p0: Array) -> Array:
        """Maps p0 to t, the inverse of `nuisance`; beyond its range to its ends."""
        low, high = self.ends
        share = np.clip((p0 - low) / (high - low), 0.0, 1.0)
        t: Array = np.arcsin(np.sqrt(share)) * 2 / np.pi
        return t


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

        def within(a: IntArray, hits: IntArray) -> NDArray[np.bool_]:
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
        low, high = self.line.ends
        p0 = low + (high - low) * shares(self.span.first, self.span.last, self.span.grid)
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
            lifted = 2 * np.log(np.sqrt(ends) + 0.5 * dip * np.sqrt(variance[0]) + 1e-150)
            bend = (variance * rise**2).sum(axis=0)
            apart = lifted[1] - lifted[0]
            s = np.clip(0.5 + apart / np.maximum(bend, 1e-300), 0, 1)
            bound: Array = np.exp(lifted[0] + s * apart + bend * s * (1 - s) / 2)
        return np.where(bound < 1, bound, 1.0)


@lru_cache(maxsize=4)
def shares(first: int, last: int, grid: int) -> Array:
    """Shares of the way through the nuisance rates at the ends of these cells."""
    return np.asarray(np.sin(0.5 * np.pi * (np.arange(first, last + 1) / grid)) ** 2)


def border(
    within: Callable[[IntArray, IntArray], NDArray[np.bool_]],
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
        hit = within(np.repeat(a[open_], asked.shape[1]), asked.ravel())
        hit = hit.reshape(asked.shape)
        first = np.where(hit.any(axis=1), hit.argmax(axis=1), asked.shape[1])
        steps, row = np.column_stack([low, asked, high]), np.arange(len(open_))
        outside[open_], inside[open_] = steps[row, first], steps[row, first + 1]
        open_, rounds = open_[inside[open_] - outside[open_] > 1], rounds + 1
    return inside
