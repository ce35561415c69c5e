"""Means of numbers in [0, 1]: bounds that hold at every sample size, in every order.

Diversified bets (Waudby-Smith and Ramdas 2024, JRSS-B 86:1): whoever bets that the
mean is above m, always the same part, on n independent numbers has in the end

    K(m) = mean over d of prod_i (1 + min(lambda_d, c / m) (x_i - m))
    lambda_d = sqrt(2 log(1 / alpha) / n) / s_d     c = 3/4, s_d = 1/2, 1/4, ..., 1/32

which at the true mean is 1 on average, so that K >= 1 / alpha has probability <= alpha
(Markov). lambda_d is about the best bet on numbers of standard deviation s_d. K falls
in m, so that the lower bound is found by halving; the upper one is that of 1 - x. Of
the numbers' distribution nothing is assumed, and K does not know their order.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CAP = 0.75
_DEVIATIONS = 0.5 ** np.arange(1, 6)
_HALVINGS = 40


def mean_bounds(values: Floats, alpha: float) -> tuple[float, float]:
    """Returns one-sided bounds of the mean, each at level alpha; (0, 1) of no numbers.

    Args:
        values: independent numbers in [0, 1] with one mean (n,).
        alpha: chance that a bound is on the wrong side of the mean.
    """
    # A sum of the same numbers in another order may differ in a bit.
    drawn = np.sort(values)
    return _lower(drawn, alpha), 1 - _lower(1 - drawn[::-1], alpha)


def _lower(values: Floats, alpha: float) -> float:
    """Returns the lower bound of the mean."""
    if not len(values):
        return 0.0
    needed = math.log(1 / alpha)
    bets = math.sqrt(2 * needed / len(values)) / _DEVIATIONS
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        m = (low + high) / 2
        logs = [np.log1p(min(bet, _CAP / m) * (values - m)).sum() for bet in bets]
        if np.logaddexp.reduce(logs) - math.log(len(bets)) >= needed:
            low = m
        else:
            high = m
    return low
