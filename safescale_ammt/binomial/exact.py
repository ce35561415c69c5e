"""Exact unconditional tests of two binomial rates, after Chan and Zhang (1999).

The question is always the same: do x1 of n1 and x0 of n0 show that p1 lies below
a *line* through p0? There are two kinds of line:

    difference   p1 = p0 + line        ratio   p1 = line * p0

Tables are ordered by the score statistic z (Miettinen and Nurminen 1985; small z
speaks for "below"), and

    p-value = sup over p0 of P(z(X1, X0) <= z observed | p1 on the line).

The set {z <= z observed} is monotone (with a table it holds every table with fewer
x1 or more x0), hence its probability falls in p1 and rises in p0. Two things
follow. The supremum over the whole null hypothesis "p1 on or above the line" sits
on the line. And over a cell [a, b] of p0 the probability is at most
P(set | p1 = line(a), p0 = b), so that a finite grid of cells gives a *proven*
upper bound of the supremum. Cells are halved until the question is settled or
their width reaches `_finest_depth`; the p-value is then too large by 1 to 5 % of
itself at the usual levels, never too small beyond rounding (about 1e-12).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

Kind = Literal["difference", "ratio"]
Array = NDArray[np.float64]

# Cells are 2^-depth wide. The deepest level bounds the time: from two samples of
# about 5,400 on a cell there is wider than the .01 in z that `_finest_depth` wants.
_COARSEST_DEPTH = 6
_CORNER_DEPTH = 9
_DEEPEST = 14
# Cells per array operation: bounds memory at a few megabytes, whatever the depth.
_BLOCK = 256
_WINDOW_SD = 6.5
# Tables with one statistic in exact arithmetic differ in the last digits. Counting
# near-ties as ties enlarges the region, so that the p-value errs upward.
_TIE = 1e-9
# Smaller p-values are reported as this: the masses outside the windows and rounding
# decide their digits.
_LEAST_P = 1e-9


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

    def nuisance(self, t: Array) -> Array:
        """Maps t in [0, 1] to all p0 whose p1 is a rate, dense at both ends.

        The arcsine scale makes steps of t about equally many standard errors.
        """
        if self.kind == "difference":
            low, high = max(0.0, -self.at), min(1.0, 1.0 - self.at)
        else:
            low, high = 0.0, min(1.0, 1.0 / self.at)
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
            q = third**3 - l1 * l2 / (6 * l3**2) + l0 / (2 * l3)
            p = np.sqrt(np.maximum(third**2 - l1 / (3 * l3), 0.0))
            # The root has the sign of q (MN): of the cubic's three real solutions this
            # picks the one that is a rate.
            p = np.where(q < 0, -p, p)
            cube = np.where(p == 0, 1.0, p**3)
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


def rejects(line: Line, z: float, level: float) -> bool:
    """Tells whether the exact p-value of an observed z is at most `level`.

    Same answer as `p_value(line, z) <= level`, but stops as soon as it is known.

    Args:
        line: the null hypothesis "p1 on or above this line".
        z: observed `line.statistic`.
        level: error level in (0, .5).
    """
    if not z < 0:
        return False
    region = _Region(line, z)
    left, right = _cells()
    for depth in range(_COARSEST_DEPTH, _finest_depth(line) + 1):
        bound = region.ceiling(left, right)
        left, right = left[bound > level], right[bound > level]
        if len(left) == 0:
            return True
        # The probability at a corner is attained, so that one above the level settles
        # the question. Deeper corners seldom settle what the first levels did not.
        if depth < _CORNER_DEPTH and region.ceiling(left, left).max() > level:
            return False
        left, right = _halve(left, right)
    return False


def p_value(line: Line, z: float, refine_below: float = 0.5) -> float:
    """Conservative exact p-value of "p1 is below the line".

    An upper bound of the supremum over p0, larger than it by about 2 % of itself
    near the usual levels. Values certainly above `refine_below` are returned as
    coarse upper bounds; z >= 0, which speaks against "below", returns 1.
    """
    if not z < 0:
        return 1.0
    region = _Region(line, z)
    left, right = _cells()
    reached = 0.0
    for depth in range(_COARSEST_DEPTH, _finest_depth(line) + 1):
        bound = region.ceiling(left, right)
        if depth < _CORNER_DEPTH:
            reached = max(reached, float(region.ceiling(left, left).max()))
        settled = reached > refine_below or bound.max() < _LEAST_P
        if settled or depth == _finest_depth(line):
            break
        # A cell whose bound lies below an attained value cannot hold the supremum;
        # the margin keeps rounding from dropping the cell that does.
        near = bound >= reached * (1 - 1e-6) - _LEAST_P
        left, right = left[near], right[near]
        left, right = _halve(left, right)
    return float(np.clip(bound.max(), _LEAST_P, 1.0))


def _cells() -> tuple[Array, Array]:
    ends = np.arange(2**_COARSEST_DEPTH + 1) / 2**_COARSEST_DEPTH
    return ends[:-1], ends[1:]


def _halve(left: Array, right: Array) -> tuple[Array, Array]:
    middle = (left + right) / 2
    return np.concatenate([left, middle]), np.concatenate([middle, right])


def _finest_depth(line: Line) -> int:
    """Depth at which a cell moves z by about .01, which moves p by about 2 %."""
    # In t the arcsine angle of a rate runs over pi, and z moves by sqrt(harmonic) per
    # unit of angle: cells of .01 in z are pi / .01 = 314 times sqrt(harmonic) many.
    # The normal tail at 1.645 falls by 2 % for .01 in z.
    harmonic = line.n1 * line.n0 / (line.n1 + line.n0)
    return min(
        _DEEPEST, max(_COARSEST_DEPTH, math.ceil(math.log2(314 * math.sqrt(harmonic))))
    )


class _Region:
    """The tables {z <= observed} and their probability.

    `least[x1]` is the least x0 in the region, n0 + 1 if there is none; it never
    falls with x1 (the statistic rises in x1 and falls in x0).
    """

    def __init__(self, line: Line, z: float) -> None:
        self.line = line
        # Bisects all x1 at once: the statistic falls in x0.
        x1 = np.arange(line.n1 + 1)
        outside = np.full(line.n1 + 1, -1)
        inside = np.full(line.n1 + 1, line.n0 + 1)
        while np.any(inside - outside > 1):
            middle = (inside + outside) // 2
            within = line.statistic(x1, np.clip(middle, 0, line.n0)) <= z + _TIE
            within |= middle > line.n0
            inside = np.where(within, middle, inside)
            outside = np.where(within, outside, middle)
        # Monotone in exact arithmetic; ties broken by rounding must not undo that,
        # since the bound on a cell rests on it.
        self.least = np.maximum.accumulate(inside)

    def ceiling(self, left: Array, right: Array) -> Array:
        """Upper bounds of the probability on cells [left, right] of t, shape (c,).

        P(X0 >= least[X1]) at the cell's worst corner (p1 at its left end, p0 at its
        right end), hence exact (up to 1e-12) where left equals right.
        """
        p1 = self.line.p1(self.line.nuisance(left))
        p0 = self.line.nuisance(right)
        parts = []
        for i in range(0, len(p1), _BLOCK):
            x1, mass1 = _window(self.line.n1, p1[i : i + _BLOCK])
            x0, mass0 = _window(self.line.n0, p0[i : i + _BLOCK])
            tail = np.zeros((len(x0), mass0.shape[1] + 1))
            tail[:, :-1] = np.cumsum(mass0[:, ::-1], axis=1)[:, ::-1]
            column = np.clip(self.least[x1] - x0[:, :1], 0, mass0.shape[1])
            upper_tail = np.take_along_axis(tail, column, axis=1)
            # What lies outside the windows counts as inside the region: the sum is
            # never too small.
            missing = 2 - mass1.sum(axis=1) - tail[:, 0]
            parts.append((mass1 * upper_tail).sum(axis=1) + np.maximum(missing, 0.0))
        return np.concatenate(parts)


def _window(n: int, p: Array) -> tuple[NDArray[np.int64], Array]:
    """Binomial masses around n p: values (c, w) and probabilities (c, w)."""
    # The normal tails beyond 6.5 standard deviations hold 8e-11. The 15 more are for
    # rates near 0 and 1, whose binomial law has a longer tail than the normal one.
    reach = _WINDOW_SD * np.sqrt(n * p * (1 - p)) + 15
    width = min(n + 1, int(2 * reach.max()) + 2)
    start = np.clip(np.floor(n * p - width / 2).astype(np.int64), 0, n + 1 - width)
    x = start[:, None] + np.arange(width)
    # The logarithms of 0 and 1 - 1 would make 0 * inf = nan of an impossible value.
    inner = np.clip(p, 1e-300, 1 - 1e-16)[:, None]
    none = np.log1p(-inner)
    log = _log_choose(n)[x]
    log += x * (np.log(inner) - none)
    log += n * none
    return x, np.exp(log, out=log)


@lru_cache(maxsize=64)
def _log_choose(n: int) -> Array:
    x = np.arange(n + 1)
    result: Array = gammaln(n + 1) - gammaln(x + 1) - gammaln(n - x + 1)
    return result
