"""Bounds of means: they hold for any numbers in [0, 1], in whatever order they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from safescale_ammt.binomial.bounded_means import mean_bounds

Draw = Callable[[np.random.Generator, int], NDArray[np.float64]]
DRAWS: dict[str, tuple[Draw, float]] = {
    "two points": (lambda g, n: (g.random(n) < 0.05).astype(float), 0.05),
    "rare and large": (lambda g, n: 0.9 * (g.random(n) < 0.02), 0.018),
    "beta": (lambda g, n: g.beta(2, 8, n), 0.2),
    "u-shaped": (lambda g, n: g.beta(0.3, 0.3, n), 0.5),
    "constant": (lambda g, n: np.full(n, 0.3), 0.3),
}


@pytest.mark.parametrize("name", DRAWS)
@pytest.mark.parametrize("n", [20, 200])
def test_each_bound_is_wrong_no_more_often_than_its_level(name: str, n: int) -> None:
    draw, mean = DRAWS[name]
    generator, runs, alpha = np.random.default_rng(7), 400, 0.1
    found = np.array([mean_bounds(draw(generator, n), alpha) for _ in range(runs)])
    # A binomial of 400 at .1 is above 58 once in a thousand.
    assert (found[:, 0] > mean).sum() <= 58
    assert (found[:, 1] < mean).sum() <= 58


@pytest.mark.parametrize("n", [200, 1000, 5000])
@pytest.mark.parametrize("shape", [(2, 8), (8, 32), (1, 30)])
def test_bounds_are_closer_than_empirical_bernstein(
    n: int, shape: tuple[int, int]
) -> None:
    """Maurer and Pontil 2009, theorem 4: the other bound that knows no order."""
    values, alpha = np.random.default_rng(3).beta(*shape, n), 0.025
    low, high = mean_bounds(values, alpha)
    log = np.log(2 / alpha)
    theirs = np.sqrt(2 * values.var(ddof=1) * log / n) + 7 * log / (3 * (n - 1))
    assert low < values.mean() < high
    assert (high - low) / 2 < 0.8 * theirs


def test_the_order_of_the_numbers_does_not_matter() -> None:
    values = np.random.default_rng(5).random(300)
    assert mean_bounds(values, 0.05) == mean_bounds(values[::-1], 0.05)
    shuffled = np.random.default_rng(6).permutation(values)
    assert mean_bounds(values, 0.05) == mean_bounds(shuffled, 0.05)


def test_known_answers() -> None:
    assert mean_bounds(np.zeros(0), 0.05) == (0.0, 1.0)
    # Of n ones the wealth is a mean of powers, and 1 / alpha at the bound.
    for n in (1, 50):
        low, high = mean_bounds(np.ones(n), 0.05)
        bets = [np.sqrt(2 * np.log(20) / n) * 2.0**d for d in range(1, 6)]
        powers = [(1 + min(bet, 0.75 / low) * (1 - low)) ** n for bet in bets]
        assert np.mean(powers) == pytest.approx(20, rel=1e-6)
        assert high == 1.0
        assert mean_bounds(np.zeros(n), 0.05) == (0.0, pytest.approx(1 - low))
