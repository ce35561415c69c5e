"""One-sided bounds for rates, for two rates and for two models on the same rows.

Every bound is one-sided at its error level: `upper` is wrong (too small) with
probability at most `alpha`, and so is `lower`; the pair of them is a 1 - 2 alpha
interval. Two independent rates are compared by the score test on a line (see
`exact.Line`); `method` says when its exact law is used and when the normal one.

References: Miettinen and Nurminen (1985), Stat. Med. 4:213; Chan and Zhang (1999),
Biometrics 55:1202; Tango (1998), Stat. Med. 17:891; Clopper and Pearson (1934),
Biometrika 26:404; Holm (1979), Scand. J. Stat. 6:65.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc, betaincinv, ndtr, ndtri

from safescale_ammt.errors import InputError
from safescale_ammt.exact import Array, Line, p_value, rejects

EXACT_UP_TO = 5_000
"""Smaller sample size up to which the exact law is always used."""
EXACT_STRICT_UP_TO = 20_000
"""... at levels below `STRICT`, where the normal law errs relatively more."""
STRICT = 0.01
_STEP = 1e-6
_SPENT = 0.97
"""Share of alpha that an exact test spends at best at the usual sizes."""
CHAN_ZHANG = "Chan-Zhang"
MIETTINEN_NURMINEN = "Miettinen-Nurminen"


def method(n1: int, n0: int, alpha: float) -> str:
    """Names the test for two rates: depends on sizes and level, never on hits.

    The design asked for the normal law from 300 up. Its true one-sided error at
    alpha .05 was then measured as up to .061 at n = (300, 3000) and .056 at
    (590, 3256); the exact one is affordable, so it reaches to 5,000.
    """
    least = min(n1, n0)
    reach = EXACT_STRICT_UP_TO if alpha < STRICT else EXACT_UP_TO
    return CHAN_ZHANG if least <= reach else MIETTINEN_NURMINEN


def shows_below(
    x1: Any, x0: Any, line: Line, alpha: float, *, normal: bool = False
) -> NDArray[np.bool_]:
    """Tells which tables show, at level alpha, that p1 lies below a line.

    This is the gate's only test of two rates; the power check calls it with
    arrays of simulated hits. The exact test is monotone in z, so that an array
    costs a handful of exact tests.

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
    if line.beyond:
        return np.full(x1.shape, line.at > 0)
    z = line.statistic(x1, x0)
    if method(line.n1, line.n0, alpha) == MIETTINEN_NURMINEN:
        return z <= ndtri(alpha)
    if normal:
        return z <= ndtri(_SPENT * alpha)
    found = np.unique(z[z < 0])
    count = _first_false(lambda i: rejects(line, float(found[i]), alpha), len(found))
    return z <= found[count - 1] if count else np.zeros(z.shape, dtype=bool)


def shows_above(x1: Any, x0: Any, line: Line, alpha: float) -> NDArray[np.bool_]:
    """Tells which tables show, at level alpha, that p1 lies above the line."""
    return shows_below(x0, x1, line.swapped, alpha)


def p_above(x1: int, x0: int, line: Line, refine_below: float = 0.5) -> float:
    """One-sided p-value of "p1 lies above the line".

    Exact up to `EXACT_STRICT_UP_TO`, since violations are tested at levels that
    Holm has divided. Values that are certainly above `refine_below` are returned
    unrefined.
    """
    below = line.swapped
    if min(line.n1, line.n0) < 1:
        return 1.0
    if below.beyond:
        return 0.0 if below.at > 0 else 1.0
    z = float(below.statistic(x0, x1))
    if method(line.n1, line.n0, 0.0) == MIETTINEN_NURMINEN:
        return float(ndtr(z))
    return p_value(below, z, refine_below)


def _first_false(holds: Callable[[int], bool], size: int) -> int:
    """Returns how many of the first indices hold (a monotone test).

    The ends are asked first: often all or none hold, and that is cheap to know.
    """
    if size == 0 or not holds(0):
        return 0
    if holds(size - 1):
        return size
    low, high = 1, size - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if holds(middle) else (low, middle)
    return low


def difference_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    """One-sided upper 1 - alpha bound of p1 - p0, by the test `method` names.

    Rounded outward, by less than .01 standard errors. 1.0 where a sample is empty.

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    _check(x1, n1, alpha)
    _check(x0, n0, alpha)
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
    _check(x1, n1, alpha)
    _check(x0, n0, alpha)
    lower = -_normal_upper(x0, n0, x1, n1, alpha)
    return lower, _normal_upper(x1, n1, x0, n0, alpha)


def chan_zhang(x1: int, n1: int, x0: int, n0: int, alpha: float) -> tuple[float, float]:
    """Exact unconditional bounds (lower, upper) of p1 - p0, each at alpha.

    Two inverted one-sided exact tests ordered by the score statistic. The tail
    probability is bounded from above over the nuisance rate (see `exact`), so
    that the bound errs outward, by about .02 standard errors, never inward.
    """
    _check(x1, n1, alpha)
    _check(x0, n0, alpha)
    lower = -_exact_upper(x0, n0, x1, n1, alpha)
    return lower, _exact_upper(x1, n1, x0, n0, alpha)


def _normal_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    point, limit = x1 / n1 - x0 / n0, float(ndtri(alpha))

    def shown(at: float) -> bool:
        return float(Line("difference", at, n1, n0).statistic(x1, x0)) <= limit

    return _least_shown(shown, point, 1.0, 1e-9)


def _exact_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    """Inverts the exact test, from a bracket grown around the normal bound."""

    def shown(at: float) -> bool:
        line = Line("difference", at, n1, n0)
        return rejects(line, float(line.statistic(x1, x0)), alpha)

    guess = _normal_upper(x1, n1, x0, n0, alpha)
    step = 0.02 * (guess - (x1 / n1 - x0 / n0)) + _STEP
    fine = step / 8
    low, high = max(-1.0, guess - step), min(1.0, guess + step)
    while high < 1 and not shown(high):
        low, high, step = high, min(1.0, high + 2 * step), 2 * step
    while low > -1 and shown(low):
        low, high, step = max(-1.0, low - 2 * step), low, 2 * step
    return _least_shown(shown, low, high, fine)


def _least_shown(
    shown: Callable[[float], bool], low: float, high: float, width: float
) -> float:
    """Bisects to the least line that is shown; returns the outer (shown) end."""
    while high - low > width:
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def ratio_upper(x1: int, n1: int, x0: int, n0: int, alpha: float) -> float:
    """One-sided upper 1 - alpha bound of p1 / p0; infinity if none can be given.

    The score test of the line p1 = r p0 (Koopman 1984 with the N / (N - 1) of
    Miettinen and Nurminen), exact or normal as `method` says, inverted on the
    scale r / (1 + r).

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    _check(x1, n1, alpha)
    _check(x0, n0, alpha)

    def shown(share: float) -> bool:
        at = share / (1 - share)
        return bool(shows_below(x1, x0, Line("ratio", at, n1, n0), alpha))

    share = _least_shown(shown, 0.0, 1.0, 2e-5)
    return share / (1 - share) if share < 1 else float("inf")


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
    half = -b - c + (2 * n - b + c) * delta
    root = np.sqrt(np.maximum(half**2 + 8 * n * c * delta * (1 - delta), 0.0))
    variance = n * (2 * (root - half) / (4 * n) + delta * (1 - delta))
    top = b - c - n * delta
    flat = variance < 1e-12
    sign = np.where(np.abs(top) < 1e-9, 0.0, np.sign(top) * 1e12)
    scale = np.sqrt(np.where(flat, 1.0, variance))
    z: Array = np.where(flat, sign, top / scale)
    return z


def tango(b: int, c: int, n: int, alpha: float) -> tuple[float, float]:
    """Paired score bounds (lower, upper) of p1 - p0, each one-sided at alpha.

    Args:
        b: rows that only the first model gets right.
        c: rows that only the second model gets right.
        n: all rows.
        alpha: one-sided error level.

    Raises:
        InputError: b + c > n, a negative count, or alpha outside (0, .5).
    """
    _check(b + c, n, alpha)
    _check(min(b, c), n, alpha)
    limit, point = float(ndtri(1 - alpha)), (b - c) / n

    def shown(delta: float, sign: int) -> bool:
        return sign * float(tango_statistic(b, c, n, sign * delta)) <= -limit

    upper = _least_shown(lambda d: shown(d, 1), point, 1.0, 1e-9)
    return -_least_shown(lambda d: shown(d, -1), -point, 1.0, 1e-9), upper


def clopper_pearson(x: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact bounds (lower, upper) of one rate, each one-sided at alpha.

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    _check(x, n, alpha)
    lower = float(betaincinv(x, n - x + 1, alpha)) if x > 0 else 0.0
    upper = float(betaincinv(x + 1, n - x, 1 - alpha)) if x < n else 1.0
    return lower, upper


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: reject where they are <= alpha (family-wise)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(v) for v in adjusted]


def _check(x: int, n: int, alpha: float) -> None:
    if not 0 <= x <= n:
        raise InputError(f"A rate needs hits between 0 and {n}, found {x}.")
    if not 0 < alpha < 0.5:
        raise InputError(f"An error level lies between 0 and .5, found {alpha:g}.")


def rate_p_below(x: Any, n: int, at: float) -> Array:
    """Exact p-value of "the rate lies below `at`": P(X <= x | n, at)."""
    x = np.asarray(x, dtype=np.float64)
    inner = np.minimum(x, n - 1)
    p: Array = np.where(x >= n, 1.0, betainc(n - inner, inner + 1, 1 - at))
    return p


def rate_p_above(x: Any, n: int, at: float) -> Array:
    """Exact p-value of "the rate lies above `at`": P(X >= x | n, at)."""
    return rate_p_below(n - np.asarray(x), n, 1 - at)
