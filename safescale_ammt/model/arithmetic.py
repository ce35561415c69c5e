"""Arithmetic of scores: the same bits on every machine, by IEEE 754 alone.

Libraries agree on neither the order of a sum nor the last bits of exp. So both factors
of a product are rounded to grids on which every sum of products is exact, whoever adds
it in whatever order (the splitting of Rump, Ogita & Oishi 2008, "Accurate
floating-point summation I"), and functions are made of +, -, *, / and rounding to
integers, which IEEE 754 defines to the last bit. Nothing here contracts two operations
into one, and what numpy computes, torch, ONNX or C compute as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Product = Callable[[Floats], Floats]
"""Rows (n, d) -> rows times a matrix (n, m)."""

BITS = 22
"""Bits of a factor, from the largest of its row (or column) of a piece downwards."""
PIECE = 512
"""Inputs that are summed at once: 2^22 * 2^22 * 512 = 2^53, the last exact integer."""
LEAST = 2.0**-500
"""Rows and columns below it are rounded as if it were their largest: no product of
theirs is denormal."""
_ONE_THREAD, _COLUMNS = 2**18, 64
"""Multiplications above which OpenBLAS starts threads, which spin while others compute
(ten times the CPU seconds on a busy machine), and columns that are computed at once."""
# As fdlibm parts ln 2: an integer below 2^20 times the first part is exact.
_LOG2_E, _LN2_HIGH, _LN2_LOW = (
    1.4426950408889634,
    6.93147180369123816490e-01,
    1.90821492927058770002e-10,
)
_LEAST_EXPONENT = -700.0
"""exp of it is 1e-304, and no denormal."""
_TAYLOR = tuple(
    reduce(lambda last, i: last / i, range(1, n + 1), 1.0) for n in range(13, -1, -1)
)
"""1 / n! for exp on half of ln 2, n from 13 down: the rest is below 2^-57."""
_FARTHEST = 40.0
"""Standard deviations at which the normal law's tail counts as 0."""
_TAIL_AT = 3.75
_TAIL = (
    *(1.1775789345674018, -0.004590054580646308, -0.08424913336651775),
    *(0.05920993999819203, -0.026658668435305645, 0.009074997670705337),
    *(-0.0024131635404175734, 0.0004907758365258036, -6.916973302505545e-05),
    *(4.139027985992887e-06, 7.740383065071649e-07, -2.1886401063169244e-07),
    *(1.0764999306921725e-08, 4.521959641338873e-09, -7.754401930663912e-10),
    *(-6.318104894436662e-11, 2.8687799812329164e-11, 1.9443141462976975e-13),
    *(-9.655673401739399e-13, 3.246245084240918e-14, 3.3452941780913216e-14),
    -1.8506464904195333e-15,
)
"""Chebyshev coefficients of (1 + 2 z) exp(z^2) erfc(z) in t = (z - 3.75) / (z + 3.75)
(Shepherd & Laframboise 1981)."""


def on_grid(x: Floats, axis: int) -> Floats:
    """Rounds each row (axis 1) or column (axis 0) to `BITS` bits of its largest.

    Where a value is not finite, or beyond 2^900, its row (or column) is NaN.
    """
    top = np.abs(x).max(axis, keepdims=True, initial=LEAST)
    # What 2^52 times a number keeps of it is a power of two, over half of it.
    lifted = top * 2.0**52
    power = (lifted + top) - lifted
    # Added to 1.5 times a power of two, a value keeps what stands above the grid.
    shift = power * (3 * 2.0 ** (52 - BITS))
    rounded: Floats = x + shift
    rounded -= shift
    return rounded


def exact(matrix: Floats) -> Product:
    """Returns what multiplies rows by a matrix (d, m), free of the order of sums.

    Sums within a piece of the inputs are exact; pieces are added one by one.
    """
    starts = range(0, max(len(matrix), 1), PIECE)
    pieces = [plain(on_grid(matrix[at : at + PIECE], 0)) for at in starts]

    def product(rows: Floats) -> Floats:
        parts = (
            piece(on_grid(rows[:, at : at + PIECE], 1))
            for at, piece in zip(starts, pieces, strict=True)
        )
        return reduce(np.add, parts)

    return product


def plain(matrix: Floats) -> Product:
    """Returns what multiplies rows by a matrix as the library at hand rounds it."""
    inputs, width = matrix.shape
    starts = range(0, width, _COLUMNS)
    parts = [np.ascontiguousarray(matrix[:, at : at + _COLUMNS]) for at in starts]

    def product(rows: Floats) -> Floats:
        out = np.empty((len(rows), width))
        for at, part in zip(starts, parts, strict=True):
            # A power of two, so that every row of a whole block is in an equal slice.
            size = 1 << max(_ONE_THREAD // max(part.size, 1), 1).bit_length() - 1
            whole = len(rows) // size * size
            slices = rows[:whole].reshape(whole // size, size, inputs) @ part
            found = out[:, at : at + _COLUMNS]
            found[:whole] = slices.reshape(whole, part.shape[1])
            found[whole:] = rows[whole:] @ part
        return out

    return product


def exp(x: Floats) -> Floats:
    """Returns e to the power of x, for x <= 0."""
    x = np.maximum(x, _LEAST_EXPONENT)
    twos = np.rint(x * _LOG2_E)
    rest = (x - twos * _LN2_HIGH) - twos * _LN2_LOW
    total = np.full_like(rest, _TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        total *= rest
        total += coefficient
    # What a NaN is as an integer does not count, as its total is NaN.
    return np.ldexp(total, twos.astype(np.int32))


def sigmoid(x: Floats) -> Floats:
    """Returns 1 / (1 + exp(-x))."""
    small = exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(x: Floats) -> Floats:
    """Returns the chances of classes (n, m), summed from the first to the last."""
    part = exp(x - x.max(1, keepdims=True))
    return part / in_order(part)[:, None]


def in_order(x: Floats) -> Floats:
    """Returns the sums of rows (n, m), added from the first column to the last."""
    return reduce(np.add, x.T)


def relu(x: Floats) -> Floats:
    """Returns max(x, 0)."""
    return np.maximum(x, 0.0)


def tanh(x: Floats) -> Floats:
    """Returns the hyperbolic tangent."""
    small = exp(-2.0 * np.abs(x))
    return np.copysign((1.0 - small) / (1.0 + small), x)


def silu(x: Floats) -> Floats:
    """Returns x times its sigmoid."""
    # Below, the sigmoid is as good as 0, whatever it is multiplied by.
    x = np.maximum(x, _LEAST_EXPONENT)
    return x * sigmoid(x)


def gelu(x: Floats) -> Floats:
    """Returns x times the share of the normal law below it."""
    x = np.maximum(x, -_FARTHEST)
    size = np.minimum(np.abs(x), _FARTHEST)
    z = size * 0.5**0.5
    t = (z - _TAIL_AT) / (z + _TAIL_AT)
    twice, last, before = t + t, np.zeros_like(t), np.zeros_like(t)
    # Clenshaw's recurrence.
    for coefficient in _TAIL[:0:-1]:
        last, before = (twice * last - before) + coefficient, last
    scaled = (t * last - before) + _TAIL[0]
    tail = 0.5 * (scaled / (1.0 + 2.0 * z)) * exp(-0.5 * (size * size))
    below: Floats = np.where(x >= 0, 1.0 - tail, tail)
    return x * below


ACTIVATION: dict[str, Callable[[Floats], Floats]] = {
    "relu": relu,
    "gelu": gelu,
    "silu": silu,
    "tanh": tanh,
}
