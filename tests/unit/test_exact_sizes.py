"""No test of two rates errs above its level: small and large samples, enumerated."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import betainc, ndtri

from safescale_ammt.binomial.cells import SPENT, rate_limits
from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.two_rates import (
    BERGER_BOOS,
    difference_lower,
    difference_upper,
    method,
    p_above,
    p_below,
    ratio_upper,
    shows_below,
)

LINES = [("difference", -0.1), ("difference", 0.005), ("difference", 0.2)]
LINES += [("ratio", 0.8), ("ratio", 1.25), ("ratio", 4.0)]


def is_shown(line: Line, small: int, other: int, alpha: float) -> bool:
    """Asks for one table: hits of the smaller sample and of the larger one."""
    table = (small, other) if line.n1 < line.n0 else (other, small)
    return bool(shows_below(*table, line, alpha))


def border(line: Line, small: int, alpha: float) -> int:
    """Of the larger sample, the hits at which the answer changes."""
    low, high = -1, max(line.n1, line.n0) + 1
    # Many hits of the second sample show it, or few of the first.
    up = line.n1 < line.n0
    while high - low > 1:
        middle = (low + high) // 2
        if is_shown(line, small, middle, alpha) == up:
            high = middle
        else:
            low = middle
    return high if up else low


def error(line: Line, borders: list[int], p1: np.ndarray, p0: np.ndarray) -> np.ndarray:
    """P(shown) at pairs of rates, where each of `borders` is a hit's border."""
    up = line.n1 < line.n0
    n, rates = (line.n1, (p1, p0)) if up else (line.n0, (p0, p1))
    other = max(line.n1, line.n0)
    hits = np.arange(n + 1)[:, None]
    tail = (
        stats.binom.sf(np.array(borders)[:, None] - 1, other, rates[1])
        if up
        else stats.binom.cdf(np.array(borders)[:, None], other, rates[1])
    )
    return (stats.binom.pmf(hits, n, rates[0]) * tail).sum(axis=0)


@pytest.mark.parametrize("sizes", [(4, 5_000), (5_000, 4), (15, 6_000)])
@pytest.mark.parametrize(("kind", "at"), LINES)
def test_a_line_is_shown_wrongly_at_most_as_often_as_the_level_says(
    sizes, kind, at
) -> None:
    line = Line(kind, at, *sizes)
    assert method(line) == BERGER_BOOS
    t = np.unique([*np.linspace(0, 1, 300), *np.geomspace(1e-4, 0.1, 60)])
    p0 = line.nuisance(np.unique([*t, *(1 - t)]))
    for alpha in (0.05, 0.01):
        borders = [border(line, x, alpha) for x in range(min(sizes) + 1)]
        assert error(line, borders, line.p1(p0), p0).max() <= alpha
        # Beyond the line as well, where no interval was made for.
        for more in (0.01, 0.1, 0.4):
            above = np.minimum(line.p1(p0) + more, 1.0)
            assert error(line, borders, above, p0).max() <= alpha


def test_a_normal_law_errs_above_its_level_in_unbalanced_samples() -> None:
    # What the gate took before: 1.2 times .05, and 1.8 times .01.
    line = Line("difference", 0.005, 20_000, 501)
    p0 = line.nuisance(np.linspace(0, 0.2, 200))
    x1 = np.arange(1_500)[None, :, None]
    for alpha, ratio in ((0.05, 1.15), (0.01, 1.5)):
        x0 = np.arange(0, 60)[:, None, None]
        low = line.statistic(x1, x0) <= ndtri(alpha)
        most = low.sum(axis=1)[:, 0] - 1
        size = stats.binom.pmf(x0[:, 0], 501, p0)
        size = size * stats.binom.cdf(most[:, None], 20_000, line.p1(p0))
        assert size.sum(axis=0).max() > ratio * alpha


@pytest.mark.parametrize(
    ("kind", "at", "sizes"),
    [
        ("difference", 0.005, (200_000, 5_001)),
        ("difference", 0.002, (5_001, 200_000)),
        ("ratio", 1.25, (200_000, 5_001)),
    ],
)
def test_rare_hits_in_large_samples_err_within_the_level(kind, at, sizes) -> None:
    line = Line(kind, at, *sizes)
    n = min(sizes)
    for expected in (2, 12):
        p0 = float(line.nuisance(np.array([0.0]))[0]) + expected / n
        p1 = float(line.p1(np.array(p0)))
        hit = p1 if line.n1 == n else p0
        # Other hits of the smaller sample count as if all were shown.
        reach = 5 * math.sqrt(n * hit) + 5
        hits = range(max(0, int(n * hit - reach)), int(n * hit + reach) + 1)
        chance = stats.binom.pmf(hits, n, hit)
        borders = np.array([border(line, x, 0.01) for x in hits])
        if line.n1 == n:
            tail = stats.binom.sf(borders - 1, line.n0, p0)
        else:
            tail = stats.binom.cdf(borders, line.n1, p1)
        assert (chance * tail).sum() + 1 - chance.sum() <= 0.01


def test_many_tables_at_once_are_judged_as_one_by_one_but_next_to_the_border() -> None:
    line = Line("difference", 0.02, 9_000, 30_000)
    rng = np.random.default_rng(0)
    x1, x0 = rng.binomial(9_000, 0.3105, 3_000), rng.binomial(30_000, 0.3, 3_000)
    together = shows_below(x1, x0, line, 0.05)
    z = line.statistic(x1, x0)
    order = np.argsort(z)
    middle = int(np.argmin(np.abs(z[order] + 1.66)))
    for i in order[middle - 40 : middle + 40]:
        alone = bool(shows_below(x1[i], x0[i], line, 0.05))
        assert alone >= together[i]
        assert alone == together[i] or abs(z[i] + 1.66) < 0.03
    assert 0.3 < together.mean() < 0.7


@pytest.mark.parametrize(("n1", "n0"), [(1, 1_000_000), (1_000_000, 1), (10**6, 10**6)])
@pytest.mark.parametrize(("kind", "at"), LINES)
def test_tables_without_hits_or_with_nothing_else_have_p_values(
    n1, n0, kind, at
) -> None:
    line = Line(kind, at, n1, n0)
    for table in ((0, 0), (0, n0), (n1, 0), (n1, n0)):
        p = p_below(*table, line)
        assert 0 < p <= 1
        assert bool(shows_below(*table, line, 0.01)) == (p <= 0.01)
        assert 0 <= p_above(*table, line) <= 1


def test_fewer_hits_are_never_weaker_evidence_in_large_samples() -> None:
    line = Line("difference", 0.01, 8_000, 50_000)
    p = [p_below(x1, 15_000, line) for x1 in range(2_250, 2_500, 25)]
    assert p == sorted(p)
    q = [p_below(2_380, x0, line) for x0 in range(14_500, 15_600, 100)]
    assert q == sorted(q, reverse=True)


@pytest.mark.parametrize(
    "table", [(1_700, 6_000, 20_500, 70_000), (3, 7_000, 9, 9_000)]
)
def test_bounds_of_large_samples_agree_with_their_test(table) -> None:
    x1, n1, x0, n0 = table
    upper, lower = difference_upper(*table, 0.05), difference_lower(*table, 0.05)
    error = (upper - lower) / 3.29
    assert shows_below(x1, x0, Line("difference", upper, n1, n0), 0.05)
    assert not shows_below(
        x1, x0, Line("difference", upper - 0.05 * error, n1, n0), 0.05
    )
    assert shows_below(x0, x1, Line("difference", -lower, n0, n1), 0.05)
    ratio = ratio_upper(*table, 0.05)
    assert shows_below(x1, x0, Line("ratio", ratio * 1.0001, n1, n0), 0.05)
    assert not shows_below(x1, x0, Line("ratio", ratio * 0.98, n1, n0), 0.05)


@pytest.mark.parametrize("n", [1, 40, 200_000])
def test_the_limits_of_a_nuisance_rate_have_their_tails(n) -> None:
    x = np.unique([0, 1, n // 2, n - 1, n])
    low, high = rate_limits(x, n, SPENT / 4)
    for at, a, b in zip(x, low, high, strict=True):
        assert 0 <= a <= at / n <= b <= 1
        if at > 0:
            assert betainc(at, n - at + 1, a) == pytest.approx(SPENT / 4, rel=1e-6)
        if at < n:
            assert betainc(n - at, at + 1, 1 - b) == pytest.approx(SPENT / 4, rel=1e-4)


def test_a_level_below_what_the_interval_spends_shows_nothing() -> None:
    line = Line("difference", 0.5, 10_000, 10_000)
    assert p_below(0, 10_000, line) <= 2 * SPENT
    assert shows_below(0, 10_000, line, 2 * SPENT)
    assert not shows_below(0, 10_000, line, SPENT / 2)


@pytest.mark.parametrize(("kind", "at"), LINES)
def test_the_nuisance_scale_and_its_inverse_agree(kind, at) -> None:
    line = Line(kind, at, 9, 9)
    t = np.linspace(0, 1, 33)
    assert line.scale(line.nuisance(t)) == pytest.approx(t, abs=1e-7)
    assert line.scale(np.array([-1.0, 2.0])).tolist() == [0, 1]
