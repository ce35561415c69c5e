"""Two independent rates: the gate's test of a line between them, and its bounds.

Rates are compared by the exact test in the order of the score statistic on a line
(Chan and Zhang 1999, Biometrics 55:1202; see `exact`), in larger samples with an
interval of the nuisance rate (Berger and Boos 1994, JASA 89:1012). Every bound is
one-sided. Miettinen and Nurminen's normal law (1985, Stat. Med. 4:213) gives first
guesses, and serves the data audit, which promises nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from safescale_ammt.binomial.cells import Span
from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.region import TwoRates
from safescale_ammt.binomial.supremum import shown, supremum
from safescale_ammt.errors import InputError

# Share of alpha that an exact test spends at best at the usual sizes.
_USED = 0.97
CHAN_ZHANG = "Chan-Zhang"
BERGER_BOOS = "Chan-Zhang with Berger-Boos"


def method(line: Line) -> str:
    """Names the test for two rates: depends on the sizes, never on hits."""
    return CHAN_ZHANG if line.whole else BERGER_BOOS


def shows_below(
    x1: Any, x0: Any, line: Line, alpha: float, *, normal: bool = False
) -> NDArray[np.bool_]:
    """Tells which tables show, at level alpha, that p1 lies below a line.

    This is the gate's only test of two rates; the power check calls it with
    arrays of simulated hits (`supremum.shown` says how these are rounded).

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
    if normal:
        return np.asarray(z <= ndtri(_USED * alpha))

    def region_at(z: float, span: Span) -> TwoRates:
        return TwoRates(line, z, span)

    spans = line.spans(x1.ravel(), x0.ravel())
    return shown(region_at, z.ravel(), spans, alpha).reshape(z.shape)


def shows_above(x1: Any, x0: Any, line: Line, alpha: float) -> NDArray[np.bool_]:
    """Tells which tables show, at level alpha, that p1 lies above the line."""
    return shows_below(x0, x1, line.swapped, alpha)


def p_above(x1: int, x0: int, line: Line, refine_below: float = 0.5) -> float:
    """One-sided p-value of "p1 lies above the line".

    Values that are certainly above `refine_below` are returned unrefined.
    """
    # "p1 above a line through p0" is "p0 below the same line through p1".
    below = line.swapped
    if min(line.n1, line.n0) < 1:
        return 1.0
    if below.trivial:
        return 0.0 if below.at > 0 else 1.0
    return p_below(x0, x1, below, refine_below)


def p_below(x1: int, x0: int, line: Line, refine_below: float = 0.5) -> float:
    """One-sided p-value of "p1 lies below the line", a line that is not trivial.

    An upper bound of the exact one, too large by a few % of itself at the usual
    levels. z >= 0, which speaks against "below", returns 1.
    """
    z = float(line.statistic(x1, x0))
    if not z < 0:
        return 1.0
    span = line.spans(np.array([x1]), np.array([x0])).of(np.array([True]))
    return min(1.0, supremum(TwoRates(line, z, span), span, refine_below))


def difference_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    """One-sided upper 1 - alpha bound of p1 - p0, the exact test inverted.

    The tail probability is bounded from above over the nuisance rate, so that the
    bound errs outward, by about .02 standard errors. 1.0 where a sample is empty.

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    check_rate(x1, n1, alpha)
    check_rate(x0, n0, alpha)
    if n1 < 1 or n0 < 1:
        return 1.0

    def shows(at: float) -> bool:
        return bool(shows_below(x1, x0, Line("difference", at, n1, n0), alpha))

    start, guess = x1 / n1 - x0 / n0, _normal_upper(x1, n1, x0, n0, alpha)
    return around(shows, guess, guess - start, -1.0)


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


def _normal_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    def line(at: float) -> Line:
        return Line("difference", at, n1, n0)

    return _normal_bound(x1, x0, line, alpha, x1 / n1 - x0 / n0)


def _normal_bound(
    x1: int, x0: int, line: Callable[[float], Line], alpha: float, start: float
) -> float:
    """Inverts the normal test between a point that is not shown and 1."""
    limit = float(ndtri(alpha))

    def shows(at: float) -> bool:
        return float(line(at).statistic(x1, x0)) <= limit

    return least_shown(shows, start, 1.0, 1e-9)


def around(
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

    The exact test of the line p1 = r p0 in the order of its score statistic (Koopman
    1984; Miettinen and Nurminen's N / (N - 1)), inverted in r / (1 + r).

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

    def shows(share: float) -> bool:
        return bool(shows_below(x1, x0, line(share), alpha))

    share = around(shows, share, share - start, 0.0)
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
