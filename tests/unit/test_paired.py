"""Two models on the same rows: against enumeration, Tango, and their own promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln, ndtr, xlogy

from safescale_ammt.binomial.cells import Span
from safescale_ammt.binomial.paired import (
    Discordant,
    gain_bounds,
    gain_p_above,
    shows_gain,
    tango,
    tango_statistic,
)
from safescale_ammt.errors import InputError


@pytest.mark.parametrize(("b", "c", "n"), [(12, 30, 200), (0, 1, 44), (9, 9, 40)])
@pytest.mark.parametrize("delta", [-0.2, -0.01, 0.0, 0.1])
def test_tangos_variance_is_that_of_the_restricted_likelihood(b, c, n, delta) -> None:
    q = np.linspace(max(0, -delta), (1 - delta) / 2, 400_001)[1:-1]
    rest = 1 - 2 * q - delta
    with np.errstate(divide="ignore", invalid="ignore"):
        likelihood = (
            np.where(b > 0, b * np.log(q + delta), 0)
            + np.where(c > 0, c * np.log(q), 0)
            + (n - b - c) * np.log(rest)
        )
    best = q[np.nanargmax(likelihood)]
    z = (b - c - n * delta) / math.sqrt(n * (2 * best + delta * (1 - delta)))
    assert tango_statistic(b, c, n, delta) == pytest.approx(z, rel=1e-3, abs=1e-3)


def test_tango_bounds_mirror_each_other_and_invert_the_statistic() -> None:
    lower, upper = tango(12, 30, 200, 0.05)
    assert tango(30, 12, 200, 0.05) == pytest.approx((-upper, -lower), abs=1e-8)
    z = stats.norm.ppf(0.95)
    assert tango_statistic(12, 30, 200, lower) == pytest.approx(z, abs=1e-5)
    assert tango_statistic(12, 30, 200, upper) == pytest.approx(-z, abs=1e-5)


def test_two_models_that_agree_everywhere_are_bounded_too() -> None:
    lower, upper = tango(0, 0, 500, 0.05)
    assert -0.01 < lower < 0 < upper < 0.01
    assert tango_statistic(0, 0, 500, 0.0) == 0


def every(n: int) -> tuple[np.ndarray, np.ndarray]:
    """All b and c of n rows."""
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    return b[b + c <= n], c[b + c <= n]


def largest_error(n: int, delta: float, shows: np.ndarray) -> float:
    """Largest P(shown | the gain is delta or less), by enumeration."""
    b, c = every(n)
    ways = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(n - b - c + 1)
    errors = []
    for gain in (delta, delta - 0.01, delta - 0.1):
        # From the edge on, where one of the two is right nowhere alone.
        for more in (0.0, *np.geomspace(1e-4, 1, 40)):
            discordant = abs(gain) + more * (1 - abs(gain))
            rates = (discordant + gain) / 2, (discordant - gain) / 2
            log_p = xlogy(b, rates[0]) + xlogy(c, rates[1])
            log_p += ways + xlogy(n - b - c, max(0.0, 1 - discordant))
            errors.append(np.exp(log_p[shows]).sum())
    return float(max(errors))


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
@pytest.mark.parametrize("delta", [-0.1, -0.02, 0.0, 0.01, 0.05])
@pytest.mark.parametrize("n", [1, 6, 35])
def test_a_gain_is_shown_wrongly_at_most_as_often_as_the_level_says(
    n: int, delta: float, alpha: float
) -> None:
    b, c = every(n)
    # One by one, as the gate asks.
    shows = np.array(
        [shows_gain(*row, n, delta, alpha) for row in zip(b, c, strict=True)]
    )
    assert largest_error(n, delta, shows) <= alpha
    together = shows_gain(b, c, n, delta, alpha)
    assert not (together & ~shows).any()


def test_tangos_normal_law_errs_more_often_than_its_level() -> None:
    # Why the gate does not take it: few discordant rows, and a gain above 0.
    b, c = every(200)
    for delta, ratio in ((0.0, 1.1), (0.05, 1.7)):
        plain = ndtr(-tango_statistic(b, c, 200, delta)) <= 0.0125
        assert largest_error(200, delta, plain) > ratio * 0.0125
        ours = shows_gain(b, c, 200, delta, 0.0125)
        assert 0.004 < largest_error(200, delta, ours) <= 0.0125


@pytest.mark.parametrize("n", [1, 7, 30])
@pytest.mark.parametrize("delta", [-0.9, -0.05, 0.0, 0.02, 0.4])
def test_tangos_statistic_rises_in_b_and_falls_in_c(n, delta) -> None:
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    z = np.where(b + c <= n, tango_statistic(b, c, n, delta), np.nan)
    rise, fall = np.diff(z, axis=0), np.diff(z, axis=1)
    assert (rise[~np.isnan(rise)] > -1e-9).all()
    assert (fall[~np.isnan(fall)] < 1e-9).all()


@settings(deadline=None, max_examples=40)
@given(
    st.data(),
    st.sampled_from([1, 20, 900, 20_000, 1_000_000]),
    st.sampled_from([-0.02, -0.001, 0.0, 0.01, 0.3]),
    st.sampled_from([0.001, 0.01, 0.05]),
)
def test_a_gain_is_shown_where_its_p_value_is_within_the_level(
    data, n, delta, alpha
) -> None:
    s = data.draw(st.integers(0, n))
    middle = (s + n * delta + data.draw(st.floats(-1, 4)) * math.sqrt(s)) / 2
    b = int(np.clip(round(middle), 0, s))
    p = gain_p_above(b, s - b, n, delta)
    assert 0 < p <= 1
    assert bool(shows_gain(b, s - b, n, delta, alpha)) == (p <= alpha)
    assert gain_p_above(b, s - b, n, delta, alpha) == p or p > alpha


@pytest.mark.parametrize("counts", [(60, 12, 1_000), (700, 600, 40_000), (9, 0, 50)])
def test_the_bounds_of_a_gain_invert_its_test(counts) -> None:
    b, c, n = counts
    lower, upper = gain_bounds(b, c, n, 0.05)
    normal = tango(b, c, n, 0.05)
    point = (b - c) / n
    assert -1 <= lower < point < upper <= 1
    step = 0.03 * (normal[1] - normal[0])
    assert (lower, upper) == pytest.approx(normal, abs=0.2 * (normal[1] - normal[0]))
    assert shows_gain(b, c, n, lower, 0.05)
    assert not shows_gain(b, c, n, lower + step, 0.05)
    assert shows_gain(c, b, n, -upper, 0.05)
    assert not shows_gain(c, b, n, -(upper - step), 0.05)


def test_many_gains_at_once_are_judged_as_one_by_one_but_next_to_the_border() -> None:
    rng = np.random.default_rng(0)
    b, c, _ = rng.multinomial(16_281, [0.0112, 0.0188, 0.97], 2_000).T
    together = shows_gain(b, c, 16_281, -0.01, 0.05)
    order = np.argsort(tango_statistic(b, c, 16_281, -0.01))
    z = tango_statistic(b, c, 16_281, -0.01)
    border = int(np.argmin(np.abs(z[order] - 1.66)))
    for i in order[border - 40 : border + 40]:
        alone = bool(shows_gain(b[i], c[i], 16_281, -0.01, 0.05))
        assert alone >= together[i]
        assert alone == together[i] or abs(z[i] - 1.66) < 0.03
    assert 0.2 < together.mean() < 0.8


@pytest.mark.parametrize("delta", [-0.2, 0.0, 0.1])
def test_the_chances_of_b_are_binomial_tails_along_the_border(delta) -> None:
    region = Discordant(90, delta, -1.2, Span(np.int64(0), np.int64(64), 64))
    d = np.array([0.3, 0.8])
    s, least = region.window.x, region.least
    ours = region.chances(np.zeros(2, dtype=np.int64), len(s), d)
    for found, share in zip(ours, (1 + delta / d) / 2, strict=True):
        assert found == pytest.approx(stats.binom.sf(least - 1, s, share), abs=1e-12)


def test_what_has_no_rows_or_no_line_needs_no_test() -> None:
    assert not shows_gain(0, 0, 0, -0.5, 0.05)
    assert shows_gain(0, 3, 3, -1.0, 0.05)
    assert not shows_gain(3, 0, 3, 1.0, 0.05)
    assert gain_p_above(0, 0, 0, -0.5) == 1.0
    assert gain_p_above(0, 3, 3, -1.0) == 0.0
    assert gain_bounds(0, 0, 0, 0.05) == (-1.0, 1.0)
    assert gain_p_above(0, 0, 9, 0.0) == 1.0
    # Models that differ nowhere are equal within a point, seen from either side.
    assert gain_p_above(0, 0, 1_000, -0.01) < 0.001
    assert gain_p_above(1_000, 0, 1_000, 0.5) < 1e-6


def test_impossible_counts_of_a_pair_are_one_clear_sentence() -> None:
    with pytest.raises(InputError, match="hits between 0 and 5, found 6"):
        gain_bounds(4, 2, 5, 0.05)
