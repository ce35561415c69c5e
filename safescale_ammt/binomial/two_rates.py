"""Two independent rates: the gate's test of a line between them, and its bounds.

Rates are compared by the score test on a line (see `exact.Line`); `method` says
when its exact law is used (Chan and Zhang 1999, Biometrics 55:1202) and when the
normal one (Miettinen and Nurminen 1985, Stat. Med. 4:213). Every bound is one-sided.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from safescale_ammt.binomial.exact import Line, p_value, rejects
from safescale_ammt.errors import InputError

EXACT_UP_TO = 5_000
"""Smaller sample size up to which the exact law is always used."""
EXACT_STRICT_UP_TO = 20_000
"""... at levels below `STRICT`, where the normal law errs relatively more."""
STRICT = 0.01
# Share of alpha that an exact test spends at best at the usual sizes.
_SPENT = 0.97
CHAN_ZHANG = "Chan-Zhang"
MIETTINEN_NURMINEN = "Miettinen-Nurminen"


def method(n1: int, n0: int, alpha: float) -> str:
    """Names the test for two rates: depends on sizes and level, never on hits.

    Depending on the hits, the choice would add an error that no table shows.
    """
    # By common advice the normal law would do from 300 up. But at alpha .05 it errs
    # with probability up to .061 at n = (300, 3000) and .056 at (590, 3256), see
    # benchmarks/results/interval-sizes.json. The exact law is affordable to 5,000.
    least = min(n1, n0)
    reach = EXACT_STRICT_UP_TO if alpha < STRICT else EXACT_UP_TO
    return CHAN_ZHANG if least <= reach else MIETTINEN_NURMINEN


def shows_below(
    x1: Any, x0: Any, line: Line, alpha: float, *, normal: bool = False
) -> NDArray[np.bool_]:
    """Tells which tables show, at level alpha, that p1 lies below a line.

    This is the gate's only test of two rates; the power check calls it with
    arrays of simulated hits. The exact test is monotone in z, so that an array
    costs a bisection, a handful of exact tests.

    Args:
        x1: hits in the first sample (of `line.n1`), any shape.
        x0: hits in the second sample (of `line.n0`), the same shape.
        line: p1 < p0 + at (difference) or p1 < at * p0 (ratio) is to be shown.
        alpha: one-sided error level.
        normal: replace the exact law by the normal one (a quick first guess).
    """
    x1, x0 = np.broadcast_arrays(np.asarray(x1), np.asarray(x0))
    if min(line.n1, line.n0) < 1:
        return np.zeros(x1.shape, dtype=bool)
    if line.trivial:
        return np.full(x1.shape, line.at > 0)
    z = line.statistic(x1, x0)
    if method(line.n1, line.n0, alpha) == MIETTINEN_NURMINEN:
        return z <= ndtri(alpha)
    if normal:
        return z <= ndtri(_SPENT * alpha)
    statistics = np.unique(z[z < 0])

    def open_at(i: int) -> bool:
        return not rejects(line, float(statistics[i]), alpha)

    # The ends come first: often all or none are shown, and that is cheap to know.
    if len(statistics) == 0 or open_at(0):
        return np.zeros(z.shape, dtype=bool)
    last = len(statistics) - 1
    if open_at(last):
        last = bisect_left(range(last), True, lo=1, key=open_at) - 1
    return np.asarray(z <= statistics[last])


def shows_above(x1: Any, x0: Any, line: Line, alpha: float) -> NDArray[np.bool_]:
    """Tells which tables show, at level alpha, that p1 lies above the line."""
    return shows_below(x0, x1, line.swapped, alpha)


def p_above(x1: int, x0: int, line: Line, refine_below: float = 0.5) -> float:
    """One-sided p-value of "p1 lies above the line".

    Exact up to `EXACT_STRICT_UP_TO`, since violations are tested at levels that
    Holm has divided. Values that are certainly above `refine_below` are returned
    unrefined.
    """
    # "p1 above a line through p0" is "p0 below the same line through p1".
    below = line.swapped
    if min(line.n1, line.n0) < 1:
        return 1.0
    if below.trivial:
        return 0.0 if below.at > 0 else 1.0
    z = float(below.statistic(x0, x1))
    # Level 0 is below `STRICT`: the p-value is compared with divided levels later.
    if method(line.n1, line.n0, 0.0) == MIETTINEN_NURMINEN:
        return float(ndtr(z))
    return p_value(below, z, refine_below)


def difference_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    """One-sided upper 1 - alpha bound of p1 - p0, by the test `method` names.

    Rounded outward, by less than .01 standard errors. 1.0 where a sample is empty.

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    check_rate(x1, n1, alpha)
    check_rate(x0, n0, alpha)
    if n1 < 1 or n0 < 1:
        return 1.0
    if method(n1, n0, alpha) == MIETTINEN_NURMINEN:
        return _normal_upper(x1, n1, x0, n0, alpha)
    return _exact_upper(x1, n1, x0, n0, alpha)


def difference_lower(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    """One-sided lower 1 - alpha bound of p1 - p0; see `difference_upper`."""
    return -difference_upper(x0, n0, x1, n1, alpha)


def miettinen_nurminen(
    x1: int, n1: int, x0: int, n0: int, alpha: float
) -> tuple[float, float]:
    """Score bounds (lower, upper) of p1 - p0, each one-sided at alpha."""
    check_rate(x1, n1, alpha)
    check_rate(x0, n0, alpha)
    lower = -_normal_upper(x0, n0, x1, n1, alpha)
    return lower, _normal_upper(x1, n1, x0, n0, alpha)


def chan_zhang(x1: int, n1: int, x0: int, n0: int, alpha: float) -> tuple[float, float]:
    """Exact unconditional bounds (lower, upper) of p1 - p0, each at alpha.

    Two inverted one-sided exact tests ordered by the score statistic. The tail
    probability is bounded from above over the nuisance rate (see `exact`), so
    that the bound errs outward, by about .02 standard errors, never inward.
    """
    check_rate(x1, n1, alpha)
    check_rate(x0, n0, alpha)
    lower = -_exact_upper(x0, n0, x1, n1, alpha)
    return lower, _exact_upper(x1, n1, x0, n0, alpha)


def _normal_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    def line(at: float) -> Line:
        return Line("difference", at, n1, n0)

    return _normal_bound(x1, x0, line, alpha, x1 / n1 - x0 / n0)


def _exact_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    def line(at: float) -> Line:
        return Line("difference", at, n1, n0)

    start = x1 / n1 - x0 / n0
    guess = _normal_bound(x1, x0, line, alpha, start)

    def shows(at: float) -> bool:
        null = line(at)
        return rejects(null, float(null.statistic(x1, x0)), alpha)

    return _around(shows, guess, guess - start, -1.0)


def _normal_bound(
    x1: int, x0: int, line: Callable[[float], Line], alpha: float, start: float
) -> float:
    """Inverts the normal test between a point that is not shown and 1."""
    limit = float(ndtri(alpha))

    def shows(at: float) -> bool:
        return float(line(at).statistic(x1, x0)) <= limit

    return least_shown(shows, start, 1.0, 1e-9)


def _around(
    shows: Callable[[float], bool], guess: float, width: float, least: float
) -> float:
    """Inverts an exact test, from a bracket grown around the normal bound."""
    # `width` is about 1.6 standard errors at alpha .05: the first step is .03 of
    # one, and the bound is rounded outward by less than .01 of one. 1e-6 is for
    # bounds at their point value, whose width is 0.
    step = 0.02 * width + 1e-6
    precision = step / 4
    low, high = max(least, guess - step), min(1.0, guess + step)
    while high < 1 and not shows(high):
        low, high, step = high, min(1.0, high + 2 * step), 2 * step
    while low > least and shows(low):
        low, high, step = max(least, low - 2 * step), low, 2 * step
    return least_shown(shows, low, high, precision)


def least_shown(
    shows: Callable[[float], bool], low: float, high: float, width: float
) -> float:
    """Bisects to the least line that is shown; returns the outer (shown) end."""
    while high - low > width:
        middle = (low + high) / 2
        low, high = (low, middle) if shows(middle) else (middle, high)
    return high


def ratio_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    """One-sided upper 1 - alpha bound of p1 / p0; infinity if none can be given.

    The score test of the line p1 = r p0 (Koopman 1984; Miettinen and Nurminen's
    N / (N - 1)), exact or normal as `method` says, inverted in r / (1 + r).

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    check_rate(x1, n1, alpha)
    check_rate(x0, n0, alpha)
    if n1 < 1 or n0 < 1:
        return math.inf

    # A ratio has no largest value to bisect from, its share r / (1 + r) ends at 1.
    def line(share: float) -> Line:
        at = share / (1 - share) if share < 1 else math.inf
        return Line("ratio", at, n1, n0)

    rates = x1 / n1, x0 / n0
    # Two rates of 0 say nothing of their ratio; 1 is in the middle of the scale.
    start = rates[0] / sum(rates) if sum(rates) > 0 else 0.5
    share = _normal_bound(x1, x0, line, alpha, start)
    if method(n1, n0, alpha) == CHAN_ZHANG:

        def shows(share: float) -> bool:
            return bool(shows_below(x1, x0, line(share), alpha))

        share = _around(shows, share, share - start, 0.0)
    return share / (1 - share) if share < 1 else math.inf


def check_rate(x: int, n: int, alpha: float) -> None:
    """Refuses impossible hits and levels.

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    if not 0 <= x <= n:
        raise InputError(f"A rate needs hits between 0 and {n}, found {x}.")
    if not 0 < alpha < 0.5:
        raise InputError(f"An error level lies between 0 and .5, found {alpha:g}.")
