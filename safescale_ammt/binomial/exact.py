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
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from safescale_ammt.binomial.cells import SPENT, Array, Span, rate_limits, span_of
from safescale_ammt.errors import InputError

Kind = Literal["difference", "ratio"]

WHOLE_UP_TO = 5_000
"""Trials of both samples together up to which all nuisance rates are searched."""
# Cells in z: the normal tail at 1.645 falls by 2 % for .01.
_FINE, _WIDE = 0.01, 0.015


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
