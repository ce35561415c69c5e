"""Masses of one binomial sample, on a stretch of hits around what is expected."""

from __future__ import annotations

import math
from functools import cache, cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from safescale_ammt.binomial.cells import Array, IntArray

_WINDOW_SD = 6.5
# Samples up to this size take their factorials from one table, made once (.5 MiB).
_TABLED = 1 << 16


@cache
def log_factorials() -> Array:
    """Logarithms of 0! to 65,535!."""
    return np.asarray(gammaln(np.arange(1, _TABLED + 1)))


def largest_variance(low: Array, high: Array) -> Array:
    """Largest p (1 - p) of rates in [low, high], of any shape."""
    most = np.maximum(low * (1 - low), high * (1 - high))
    return np.where((low <= 0.5) & (high >= 0.5), 0.25, most)


class Windows:
    """Binomial masses of n trials around n p, for rates p between two ends."""

    def __init__(self, n: int, p_from: float, p_to: float) -> None:
        low, high = sorted((float(p_from), float(p_to)))
        self.n = n
        widest = largest_variance(np.array(low), np.array(high))
        # The normal tails beyond 6.5 standard deviations hold 8e-11. The 15 more are
        # for rates near 0 and 1, whose law has a longer tail than the normal one.
        reach = _WINDOW_SD * math.sqrt(n * float(widest)) + 15
        self.width = min(n + 1, int(2 * reach) + 2)
        ends = math.floor(n * low - reach) - 3, math.ceil(n * high + reach) + 4
        self.x: IntArray = np.arange(max(0, ends[0]), min(n, ends[1]) + 1)
        if n < _TABLED:
            log = log_factorials()
            self.log_choose = log[n] - log[self.x] - log[n - self.x]
        else:
            ways = gammaln(self.x + 1) + gammaln(n - self.x + 1)
            self.log_choose = gammaln(n + 1) - ways

    @cached_property
    def likeliest(self) -> Array:
        """Logarithms of p^x (1 - p)^(n - x) at p = x / n, for each number of hits x."""
        misses = self.n - self.x
        return np.asarray(
            xlogy(self.x, self.x / self.n) + xlogy(misses, misses / self.n)
        )

    def places(self, low: Array, high: Array) -> tuple[IntArray, int]:
        """Where in `x` nearly all hits lie for rates in [low, high]: starts, width."""
        widest = largest_variance(low, high)
        reach = 2 * (_WINDOW_SD * np.sqrt(self.n * widest) + 15)
        width = int((reach + self.n * (high - low)).max()) + 2
        width = min(len(self.x), width)
        start = np.floor(self.n * (low + high) / 2 - width / 2) - self.x[0]
        return np.clip(start, 0, len(self.x) - width).astype(np.int64), width

    def masses(self, start: IntArray, width: int, p: Array) -> Array:
        """Probabilities (c, w) of the values from these places on, for rates (c,)."""
        # The logarithms of 0 and 1 - 1 would make 0 * inf = nan of an impossible value.
        inner = np.clip(p, 1e-300, 1 - 1e-16)
        none = np.log1p(-inner)
        odds = np.log(inner) - none
        log = rows(self.log_choose, start, width)
        log += odds[:, None] * np.arange(width)
        log += (self.x[start] * odds + self.n * none)[:, None]
        result: Array = np.exp(log, out=log)
        return result

    def largest(self, start: IntArray, width: int, low: Array, high: Array) -> Array:
        """Largest probabilities of these values, for rates in [low, high]."""
        # Of x hits the end of [low, high] next to x / n is the likeliest, or x / n.
        ends = np.clip(np.array([low, high]), 1e-300, 1 - 1e-16)
        none = np.log1p(-ends)
        odds = (np.log(ends) - none)[:, :, None]
        first = self.x[start] * odds[:, :, 0] + self.n * none
        log, other = odds * np.arange(width) + first[:, :, None]
        np.maximum(log, other, out=log)
        # Only those between the ends are their own likeliest.
        place = np.ceil(self.n * low).astype(np.int64) - self.x[start]
        least = np.maximum(place, 0)
        most = np.minimum(np.floor(self.n * high) - self.x[start], width - 1)
        within = least[:, None] + np.arange(
            max(0, int((most - least).max(initial=-1)) + 1)
        )
        row, column = np.nonzero(within <= most[:, None])
        column = within[row, column]
        log[row, column] = self.likeliest[start[row] + column]
        log += rows(self.log_choose, start, width)
        result: Array = np.exp(log, out=log)
        return result


def rows(values: NDArray[Any], start: IntArray, width: int) -> NDArray[Any]:
    """Stretches of `values` (c, width) that begin at these places (c,), copied."""
    return np.lib.stride_tricks.sliding_window_view(values, width)[start]
