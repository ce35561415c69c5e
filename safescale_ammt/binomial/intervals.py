"""One-sided bounds and tests of one rate and of one mean; Holm's correction.

Every bound is one-sided at its error level: `upper` is wrong (too small) with
probability at most `alpha`, and so is `lower`; the pair of them is a 1 - 2 alpha
interval. Two independent rates live in `two_rates`, two
models on the same rows in `paired`.

References: Clopper and Pearson (1934), Biometrika 26:404; Hoeffding (1963), JASA
58:13; Holm (1979), Scand. J. Stat. 6:65.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.special import betainc, rel_entr

from safescale_ammt.binomial.cells import Array, rate_limits
from safescale_ammt.binomial.two_rates import check_rate, least_shown


def clopper_pearson(x: int, n: int, alpha: float) -> tuple[float, float]:
    """Exact bounds (lower, upper) of one rate, each one-sided at alpha.

    Raises:
        InputError: hits outside [0, n], or alpha outside (0, .5).
    """
    check_rate(x, n, alpha)
    low, high = rate_limits(np.array([x]), n, alpha)
    return float(low[0]), float(high[0])


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
