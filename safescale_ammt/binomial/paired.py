"""Exact unconditional tests of two models on the same rows, in Tango's order.

Of n rows b are right in the first model alone, c in the second alone. Do they show
that p1 - p0 lies above delta? Tables are ordered by Tango's score statistic (1998,
Stat. Med. 17:891), which rises in b and falls in c (Sidik 2003, Stat. Med. 22:265),
and the nuisance is the *discordance* d, the share of rows that only one of the two
gets right: on the line p_b = (d + delta) / 2 and p_c = (d - delta) / 2. The p-value is
the supremum over d (Hsueh, Liu and Chen 2001, Biometrics 57:478) in an exact interval
of d, from b + c of n (`supremum`). Off the line, at a smaller gain and the same d,
p_b is smaller and p_c larger, and the region less probable.

With s = b + c binomial (n, d) and b given s binomial (s, p_b / d),

    P(region) = sum over s of P(s) P(b >= least[s] | s),

over a cell of d at most the sum with each P(s) and each share p_b / d at its largest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, gammaln, ndtr, ndtri

from safescale_ammt.binomial.cells import (
    SPENT,
    Array,
    IntArray,
    Span,
    rate_limits,
    span_of,
)
from safescale_ammt.binomial.region import TIE
from safescale_ammt.binomial.supremum import shown, supremum
from safescale_ammt.binomial.two_rates import around, check_rate, least_shown
from safescale_ammt.binomial.windows import Windows, rows

EXACT_PAIRED = "exact paired (Tango order)"
# Cells in standard errors of b + c: the probability over one is .4 times as much
# larger, and up to 2 times where the discordance is hardly more than |delta|.
_CELL = 0.04
# Masses per array operation: bounds memory at a few megabytes, whatever the rows.
_BLOCK = 1 << 16
# By Bernstein's inequality less than this lies beyond both ends of a window of
# 6.5 standard deviations and 15 rows.
_OUTSIDE = 2e-9


def tango_statistic(b: Any, c: Any, n: int, delta: float) -> Array:
    """Score statistic of p1 - p0 = delta for two models on the same n rows.

    z = (b - c - n delta) / sqrt(n (2 q + delta (1 - delta))), with q the restricted
    MLE of the share of rows that only the second model gets right (Tango 1998).

    Args:
        b: rows that only the first model gets right, any shape.
        c: rows that only the second model gets right, the same shape.
        n: all rows.
        delta: the difference tested, in [-1, 1].
    """
    b = np.asarray(b, dtype=np.float64)
    c = np.asarray(c, dtype=np.float64)
    # q is the larger root of A q^2 + B q + C with A = 2 n, B = `linear` and
    # C = -c delta (1 - delta); rounding may take the discriminant below 0.
    linear = -b - c + (2 * n - b + c) * delta
    root = np.sqrt(np.maximum(linear**2 + 8 * n * c * delta * (1 - delta), 0.0))
    variance = n * (2 * (root - linear) / (4 * n) + delta * (1 - delta))
    numerator = b - c - n * delta
    # No discordant row at delta 0, or |delta| = 1: there is no variance, and the
    # numerator alone says on which side of the line the two models lie.
    flat = variance < 1e-12
    sign = np.where(np.abs(numerator) < 1e-9, 0.0, np.sign(numerator) * 1e12)
    scale = np.sqrt(np.where(flat, 1.0, variance))
    z: Array = np.where(flat, sign, numerator / scale)
    return z


def shows_gain(
    b: Any, c: Any, n: int, delta: float, alpha: float, *, normal: bool = False
) -> NDArray[np.bool_]:
    """Tells which tables show, at level alpha, that p1 - p0 lies above delta.

    This is the gate's only test of two models; the power check calls it with arrays
    of simulated counts (`supremum.shown` says how these are rounded).

    Args:
        b: rows that only the first model gets right, any shape.
        c: rows that only the second model gets right, the same shape.
        n: all rows.
        delta: the difference.
        alpha: one-sided error level.
        normal: replace the exact law by Tango's normal one (a quick first guess).
    """
    b, c = np.broadcast_arrays(np.asarray(b), np.asarray(c))
    if n < 1 or abs(delta) >= 1:
        return np.full(b.shape, n >= 1 and delta <= -1)
    z = -tango_statistic(b, c, n, delta)
    if normal:
        return np.asarray(ndtr(z) <= alpha)

    def region_at(z: float, span: Span) -> Discordant:
        return Discordant(n, delta, z, span)

    spans = discordance(np.ravel(b + c), n, delta)
    return shown(region_at, z.ravel(), spans, alpha).reshape(z.shape)


def gain_p_above(
    b: int, c: int, n: int, delta: float, refine_below: float = 0.5
) -> float:
    """Exact p-value of "p1 - p0 lies above delta"; see `shows_gain`.

    Values that are certainly above `refine_below` are returned unrefined.
    """
    if n < 1 or abs(delta) >= 1:
        return 0.0 if n >= 1 and delta <= -1 else 1.0
    z = -float(tango_statistic(b, c, n, delta))
    if not z < 0:
        return 1.0
    span = discordance(np.array([b + c]), n, delta).of(np.array([True]))
    return min(1.0, supremum(Discordant(n, delta, z, span), span, refine_below))


def gain_bounds(b: int, c: int, n: int, alpha: float) -> tuple[float, float]:
    """Bounds (lower, upper) of p1 - p0, the exact test inverted, each at alpha.

    Raises:
        InputError: b + c > n, a negative count, or alpha outside (0, .5).
    """
    check_rate(b + c, n, alpha)
    check_rate(min(b, c), n, alpha)
    if n < 1:
        return -1.0, 1.0
    point, guess = (b - c) / n, tango(b, c, n, alpha)

    # "Below d" is "above -d" with the models exchanged.
    def is_below(at: float) -> bool:
        return bool(shows_gain(c, b, n, -at, alpha))

    def is_above(at: float) -> bool:
        return bool(shows_gain(b, c, n, -at, alpha))

    upper = around(is_below, guess[1], guess[1] - point, -1.0)
    return -around(is_above, -guess[0], point - guess[0], -1.0), upper


def tango(b: int, c: int, n: int, alpha: float) -> tuple[float, float]:
    """Tango's normal bounds (lower, upper) of p1 - p0, where exact ones are sought.

    Args:
        b: rows that only the first model gets right.
        c: rows that only the second model gets right.
        n: all rows.
        alpha: one-sided error level.
    """
    limit, point = float(ndtri(1 - alpha)), (b - c) / n

    # The lower bound is the upper one with the models exchanged: -delta, -z.
    def shows(delta: float, sign: int) -> bool:
        return sign * float(tango_statistic(b, c, n, sign * delta)) <= -limit

    upper = least_shown(lambda d: shows(d, 1), point, 1.0, 1e-9)
    return -least_shown(lambda d: shows(d, -1), -point, 1.0, 1e-9), upper


def discordance(s: IntArray, n: int, delta: float) -> Span:
    """The cells of d = sin(pi t / 2)^2 that are searched, for discordant rows (k,)."""
    # The standard error of the angle pi t is 1 / sqrt(n), whatever the discordance.
    grid = max(64, math.ceil(math.pi * math.sqrt(n) / _CELL))
    # A discordance is no smaller than the gain; below |delta| the line begins there.
    ends = np.maximum(rate_limits(s, n, SPENT / 2), abs(delta))
    low, high = np.arcsin(np.sqrt(ends)) * 2 / np.pi
    return span_of(low, high, grid)


class Discordant:
    """The tables {-Tango's statistic <= z}, for discordances within a span.

    `least[s]` is the least b in the region of s discordant rows, s + 1 if there is
    none; from one s to the next it stays or rises by one.
    """

    order = 1

    def __init__(self, n: int, delta: float, z: float, span: Span) -> None:
        self.delta, self.grid = delta, span.grid
        self.window = Windows(
            n, *self.rates(np.array([span.first, span.last]) / span.grid)
        )
        s = self.window.x
        outside, inside = np.full(len(s), -1), s + 1
        # Bisects all s at once.
        while np.any(inside - outside > 1):
            middle = (inside + outside) // 2
            within = -tango_statistic(middle, s - middle, n, delta) <= z + TIE
            # Where the two are next to each other, the middle is the outer one.
            within &= middle > outside
            inside = np.where(within, middle, inside)
            outside = np.where(within, outside, middle)
        # Monotone in exact arithmetic, in b and in c; a larger region errs upward.
        least = np.minimum.accumulate(inside[::-1])[::-1]
        self.least = least = s - np.maximum.accumulate(s - least)
        # From s to s + 1 the chance of b >= least gains P(least - 1 | s) p, and where
        # least rises it loses P(least | s + 1): in all P(least | s) (1 - p).
        rises = np.diff(least, append=least[-1]) > 0
        kept = least - 1 + rises
        with np.errstate(invalid="ignore"):
            self.log_ways = gammaln(s + 1) - gammaln(kept + 1) - gammaln(s - kept + 1)
        self.sign = np.where(rises, -1.0, 1.0)

    def rates(self, t: Array) -> Array:
        """Discordances of the nuisance scale."""
        d: Array = np.maximum(np.sin(0.5 * np.pi * t) ** 2, abs(self.delta))
        return d

    def narrow(self, cells: IntArray) -> Array:
        """Ceilings of single cells of the span's grid, (c,)."""
        return self.ceiling(cells / self.grid, (cells + 1) / self.grid)

    def between(self, first: IntArray, last: IntArray, _ends: Array, /) -> Array:
        """Upper bounds of the ceilings of all cells between two, (c,)."""
        return self.ceiling((first + 1) / self.grid, last / self.grid)

    def ceiling(self, left: Array, right: Array) -> Array:
        """Upper bounds: every mass of s and every share of b at its largest."""
        low, high = self.rates(left), self.rates(right)
        window, parts = self.window, []
        block = max(1, _BLOCK // len(window.x))
        for i in range(0, len(low), block):
            ends = low[i : i + block], high[i : i + block]
            start, width = window.places(*ends)
            # The share of b among s rises in d where delta is below 0.
            chances = self.chances(start, width, ends[self.delta < 0])
            mass = window.largest(start, width, *ends)
            parts.append((mass * chances).sum(axis=1) + _OUTSIDE)
        return np.concatenate([np.zeros(0), *parts])

    def chances(self, places: IntArray, width: int, d: Array) -> Array:
        """P(b >= least[s] | s), (c, w), from these places on, discordances (c,)."""
        share = np.clip(0.5 + 0.5 * self.delta / np.maximum(d, 1e-300), 0.0, 1.0)
        least, s = self.least[places], self.window.x[places]
        start = betainc(np.maximum(least, 1), np.maximum(s - least + 1, 1e-9), share)
        start = np.where(least < 1, 1.0, np.where(least > s, 0.0, start))
        inner = np.clip(share, 1e-300, 1 - 1e-16)
        none = np.log1p(-inner)
        log = rows(self.least, places, width) * (np.log(inner) - none)[:, None]
        log += none[:, None] * np.arange(1, width + 1)
        log += (s * none)[:, None]
        log += rows(self.log_ways, places, width)
        change = np.exp(log, out=log)
        change *= rows(self.sign, places, width)
        chances: Array = np.cumsum(change, axis=1)
        chances += start[:, None] - change
        return np.clip(chances, 0.0, 1.0, out=chances)
