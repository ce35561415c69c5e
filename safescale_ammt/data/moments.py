"""Mean and spread of finite numbers, where plain sums and squares leave the floats.

Squares of 1e-170 are 0, and many of 1e150 have no sum. A power of two takes numbers
into [-1, 1] and back without rounding, so that all else keeps its bits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LEAST_SPREAD = 1e-150
"""Below, squares of deviations are subnormal, or 0."""


def within_one(columns: Sequence[Floats]) -> tuple[list[Floats], int]:
    """Scales columns by one power of two, so that the greatest value is in [.5, 1).

    Args:
        columns: finite numbers (n,); NaN stays.

    Returns:
        The columns over 2^k, and k.
    """
    ends = [np.nanmax(np.abs(column), initial=0.0) for column in columns]
    power = int(np.frexp(max(ends))[1])
    # Of 2^-k itself there is no float where the numbers are subnormal.
    return [np.ldexp(column, -power) for column in columns], power


def mean_and_spread(values: Floats) -> tuple[float, float]:
    """Returns mean and standard deviation (of n, not n - 1) of finite numbers (n,)."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        mean, spread = float(values.mean()), float(values.std())
    if np.isfinite(mean) and _LEAST_SPREAD < spread < np.inf:
        return mean, spread
    (scaled,), power = within_one([values])
    # Rounding may lift the mean of equal numbers by a bit, beyond all floats.
    inner = np.clip(scaled.mean(), scaled.min(), scaled.max())
    return float(np.ldexp(inner, power)), float(np.ldexp(scaled.std(), power))
