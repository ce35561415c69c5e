"""One-sided bounds for rates, for two rates and for two models on the same rows.

Every bound is one-sided at its error level: `upper` is wrong (too small) with
probability at most `alpha`, and so is `lower`; the pair of them is a 1 - 2 alpha
interval. Two independent rates live in `two_rates`.

References: Tango (1998), Stat. Med. 17:891; Clopper and Pearson (1934), Biometrika
26:404; Hoeffding (1963), JASA 58:13; Holm (1979), Scand. J. Stat. 6:65.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import betainc, betaincinv, ndtr, ndtri, rel_entr

from safescale_ammt.binomial.exact import Array
from safescale_ammt.binomial.two_rates import check_rate, least_shown


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
    check_rate(b + c, n, alpha)
    check_rate(min(b, c), n, alpha)
    limit, point = float(ndtri(1 - alpha)), (b - c) / n

    # The lower bound is the upper one with the models exchanged: -delta, -z.
    def shows(delta: float, sign: int) -> bool:
        return sign * float(tango_statistic(b, c, n, sign * delta)) <= -limit

    upper = least_shown(lambda d: shows(d, 1), point, 1.0, 1e-9)
    return -least_shown(lambda d: shows(d, -1), -point, 1.0, 1e-9), upper


def clopper_pearson(x: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact bounds (lower, upper) of one rate, each one-sided at alpha.

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    check_rate(x, n, alpha)
    # P(X >= x | n, p) is the regularised incomplete beta function I_p(x, n - x + 1).
    lower = float(betaincinv(x, n - x + 1, alpha)) if x > 0 else 0.0
    upper = float(betaincinv(x + 1, n - x, 1 - alpha)) if x < n else 1.0
    return lower, upper


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: reject where they are <= alpha (family-wise)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    steps = p[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    # A hypothesis is rejected only if all with smaller p-values are.
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(v) for v in adjusted]


def rate_p_below(x: Any, n: int, at: float) -> Array:
    """Exact p-value of "the rate lies below `at`": P(X <= x | n, at)."""
    x = np.asarray(x, dtype=np.float64)
    # x = n has probability 1 and would ask for the beta function at 0.
    inner = np.minimum(x, n - 1)
    p: Array = np.where(x >= n, 1.0, betainc(n - inner, inner + 1, 1 - at))
    return p


def rate_p_above(x: Any, n: int, at: float) -> Array:
    """Exact p-value of "the rate lies above `at`": P(X >= x | n, at)."""
    return rate_p_below(n - np.asarray(x), n, 1 - at)


def gain_p_above(b: Any, c: Any, n: int, delta: float) -> Array:
    """P-value that shows "p1 - p0 lies above delta": Tango's, corrected above 0.

    Where the second model is hardly ever right alone, b - c is nearly binomial and
    skewed, and for a delta above 0 the score test errs up to 1.9 times its level. Half
    a row is then taken off the gain, as continuity asks, and the p-value is no less
    than the exact one of the edge, where b - c is binomial.

    Args:
        b: rows that only the first model gets right, any shape.
        c: rows that only the second model gets right, the same shape.
        n: all rows.
        delta: the difference, in [-1, 1].
    """
    z = tango_statistic(b, c, n, delta)
    if delta <= 0:
        tango_p: Array = ndtr(-z)
        return tango_p
    gain = np.asarray(b, dtype=np.float64) - c
    over = gain - n * delta
    corrected = np.where(over > 0.5, z * (1 - 0.5 / np.where(over > 0.5, over, 1)), -1)
    edge = np.where(gain > 0, rate_p_above(np.maximum(gain, 0), n, delta), 1.0)
    p: Array = np.maximum(ndtr(-corrected), edge)
    return p


def mean_p_below(mean: Any, units: int, at: float) -> Array:
    """Proven p-value of "the expected mean lies below `at`" (Hoeffding 1963).

    exp(-k KL(mean, at)) for a mean of k independent values in [0, 1], and for every
    average of such means over orders of the rows, as two-sample U-statistics are
    (section 5 there): 1 where the mean does not lie below.

    Args:
        mean: measured mean in [0, 1], any shape.
        units: k, the independent values behind it.
        at: the line.
    """
    mean = np.asarray(mean, dtype=np.float64)
    # Without a value there is no mean, and 0 times an infinite divergence is no number.
    if units < 1:
        return np.ones(mean.shape)
    divergence = rel_entr(mean, at) + rel_entr(1 - mean, 1 - at)
    p: Array = np.where(mean < at, np.exp(-units * divergence), 1.0)
    return p


def mean_bounds(mean: float, units: int, alpha: float) -> tuple[float, float]:
    """Proven bounds (lower, upper) of an expected mean, each one-sided at alpha.

    The test of `mean_p_below` inverted, rounded outward by less than 1e-9.
    """

    def shows_below(mean: float, at: float) -> bool:
        return bool(mean_p_below(mean, units, at) <= alpha)

    upper = least_shown(lambda at: shows_below(mean, at), mean, 1.0, 1e-9)
    lower = least_shown(lambda at: shows_below(1 - mean, at), 1 - mean, 1.0, 1e-9)
    return 1.0 - lower, upper
