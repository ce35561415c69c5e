"""Functions of any number, the same bits on every machine.

Made of what IEEE 754 defines, as `arithmetic` is; these are the ones that a module of a
user's own may ask for besides.
"""

from __future__ import annotations

import math

import numpy as np

from safescale_ammt.model.arithmetic import Floats, exp, gelu, tanh

_HALF_PI = (
    1.57079632673412561417e00,
    6.07710050630396597660e-11,
    2.02226624879595063154e-21,
)
"""fdlibm's parts of pi / 2: a whole number below 2^20 times the first is exact."""
_FARTHEST = 2.0**20
"""Angles beyond which these parts are too few: their sine is NaN."""
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SQRT_HALF = 0.5**0.5
_GELU_SCALE = (2.0 / math.pi) ** 0.5
_MOST_FACTORS = 64
"""Greatest power that is computed by multiplication."""


def exp_of(x: Floats) -> Floats:
    """Returns e to the power of x, for any x."""
    small = exp(-np.abs(x))
    return np.where(x > 0, 1.0 / small, small)


def log_of(x: Floats) -> Floats:
    """Returns the natural logarithm: 2 atanh((m - 1) / (m + 1)) + e ln 2."""
    part, twos = np.frexp(x)
    low = part < _SQRT_HALF
    part, twos = np.where(low, 2.0 * part, part), twos - low
    ratio = (part - 1.0) / (part + 1.0)
    square = ratio * ratio
    total = np.zeros_like(ratio)
    # The ratio is below .1716: what comes after 1/25 is below 2^-70.
    for divisor in range(25, 0, -2):
        total = total * square + 1.0 / divisor
    found = twos * _LN2_HIGH + (2.0 * ratio * total + twos * _LN2_LOW)
    found = np.where(x == 0, -np.inf, np.where(x < 0, np.nan, found))
    return np.where(x == np.inf, np.inf, found)


def log1p(x: Floats) -> Floats:
    """Returns log(1 + x), with the digits that the sum has lost (Kahan)."""
    whole = 1.0 + x
    plain = (whole == 1.0) | ~np.isfinite(whole)
    lost = np.where(plain, 1.0, whole - 1.0)
    found = log_of(whole) * (np.where(plain, 1.0, x) / lost)
    return np.where(whole == 1.0, x, found)


def sine(x: Floats, quarters: int = 0) -> Floats:
    """Returns the sine of x + quarters * pi / 2 (Cody & Waite, then Taylor)."""
    x = np.where(np.abs(x) < _FARTHEST, x, np.nan)
    turns = np.rint(x / (math.pi / 2))
    rest = x
    for part in _HALF_PI:
        rest = rest - turns * part
    square = rest * rest

    def series(first: int) -> Floats:
        total = np.zeros_like(square)
        for i in range(9, -1, -1):
            total = total * square + (-1.0) ** i / math.factorial(2 * i + first)
        return total

    quarter = np.mod(turns + quarters, 4.0)
    odd = np.mod(quarter, 2.0) == 1
    found = np.where(odd, series(0), rest * series(1))
    return np.where(quarter >= 2, -found, found)


def power(x: Floats, exponent: float) -> Floats:
    """Returns x to a power, by multiplication where it is whole and small."""
    if exponent == 0.5:
        return np.sqrt(x)
    if not exponent.is_integer() or abs(exponent) > _MOST_FACTORS:
        return exp_of(exponent * log_of(x))
    found = np.ones_like(x)
    for _ in range(int(abs(exponent))):
        found = found * x
    return found if exponent >= 0 else 1.0 / found


def erf(x: Floats) -> Floats:
    """Returns the error function, from the share of the normal law below x sqrt 2."""
    # GELU is that share times its argument; beyond 38 the share is 1.
    z = np.minimum(np.where(x == 0, 1.0, np.abs(x) / _SQRT_HALF), 38.0)
    return np.where(x == 0, 0.0, np.copysign(2.0 * (gelu(z) / z) - 1.0, x))


def gelu_of(x: Floats, approximate: str) -> Floats:
    """Returns GELU, or its approximation by tanh."""
    if approximate == "none":
        return gelu(x)
    return 0.5 * x * (1.0 + tanh(_GELU_SCALE * (x + 0.044715 * x * x * x)))
