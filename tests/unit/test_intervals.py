"""Bounds: against published values, scipy, brute force and their own promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import gammaln, ndtr

from safescale_ammt.binomial.exact import Line, p_value, rejects
from safescale_ammt.binomial.intervals import (
    clopper_pearson,
    gain_p_above,
    holm,
    rate_p_above,
    rate_p_below,
    tango,
    tango_statistic,
)
from safescale_ammt.binomial.two_rates import (
    CHAN_ZHANG,
    MIETTINEN_NURMINEN,
    chan_zhang,
    difference_lower,
    difference_upper,
    method,
    miettinen_nurminen,
    p_above,
    ratio_upper,
    shows_above,
    shows_below,
)
from safescale_ammt.errors import InputError

LINES = [
    ("difference", -0.3),
    ("difference", 0.0),
    ("difference", 0.05),
    ("difference", 0.2),
    ("ratio", 0.8),
    ("ratio", 1.0),
    ("ratio", 1.25),
]


def tables(n1: int, n0: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(n1 + 1)[:, None], np.arange(n0 + 1)[None, :]


def chances(n1: int, n0: int, p1: float, p0: float) -> np.ndarray:
    x1, x0 = tables(n1, n0)
    return stats.binom.pmf(x1, n1, p1) * stats.binom.pmf(x0, n0, p0)


@pytest.mark.parametrize(
    ("table", "bounds"),
    [
        ((56, 70, 48, 80), (0.0528, 0.3382)),
        ((9, 10, 3, 10), (0.1700, 0.8406)),
        ((10, 10, 0, 20), (0.7156, 1.0000)),
    ],
)
def test_miettinen_nurminen_agrees_with_newcombes_table(table, bounds) -> None:
    # Newcombe (1998), Stat. Med. 17:873, table II, method 6, two-sided 95 %.
    assert miettinen_nurminen(*table, 0.025) == pytest.approx(bounds, abs=6e-5)


@pytest.mark.parametrize(("x", "n"), [(0, 20), (3, 20), (20, 20), (590, 3256)])
def test_clopper_pearson_agrees_with_scipy(x, n) -> None:
    lower, upper = clopper_pearson(x, n, 0.05)
    low = stats.binomtest(x, n, alternative="greater").proportion_ci(0.95, "exact")
    high = stats.binomtest(x, n, alternative="less").proportion_ci(0.95, "exact")
    assert (lower, upper) == pytest.approx((low.low, high.high), abs=1e-9)


@given(st.integers(1, 60), st.data())
def test_rate_p_values_are_binomial_tails(n, data) -> None:
    x = data.draw(st.integers(0, n))
    at = data.draw(st.floats(0.01, 0.99))
    assert rate_p_below(x, n, at) == pytest.approx(stats.binom.cdf(x, n, at))
    assert rate_p_above(x, n, at) == pytest.approx(stats.binom.sf(x - 1, n, at))


@pytest.mark.parametrize(("kind", "at"), LINES)
@pytest.mark.parametrize(("n1", "n0"), [(1, 1), (7, 3), (12, 30), (41, 29)])
def test_the_score_statistic_rises_in_x1_and_falls_in_x0(n1, n0, kind, at) -> None:
    z = Line(kind, at, n1, n0).statistic(*tables(n1, n0))
    assert np.isfinite(z).all()
    assert (np.diff(z, axis=0) > -1e-9).all()
    assert (np.diff(z, axis=1) < 1e-9).all()


@pytest.mark.parametrize(("kind", "at"), LINES)
@pytest.mark.parametrize(("n1", "n0"), [(5, 9), (14, 8)])
def test_the_exact_p_value_is_just_above_brute_force(n1, n0, kind, at) -> None:
    line = Line(kind, at, n1, n0)
    z = line.statistic(*tables(n1, n0))
    p0 = line.nuisance(np.linspace(0, 1, 401))
    grid = list(zip(line.p1(p0), p0, strict=True))
    weights = [chances(n1, n0, p1, q) for p1, q in grid]
    for observed in np.unique(z[z < -0.5])[:: max(1, z.size // 6)]:
        brute = max(float(w[z <= observed + 1e-9].sum()) for w in weights)
        ours = p_value(line, float(observed))
        assert brute - 1e-9 <= ours <= 1.05 * brute + 1e-8


def test_the_exact_test_at_gap_zero_is_barnards() -> None:
    for x1, n1, x0, n0 in [(2, 15, 8, 15), (1, 20, 7, 25), (12, 30, 20, 28)]:
        z = Line("difference", 0.0, n1, n0).statistic(x1, x0)
        ours = p_value(Line("difference", 0.0, n1, n0), float(z))
        reference = stats.barnard_exact(
            [[x1, x0], [n1 - x1, n0 - x0]], alternative="less", n=256
        )
        assert ours == pytest.approx(reference.pvalue, rel=0.03)


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(LINES),
    st.integers(1, 40),
    st.integers(1, 40),
    st.floats(-4, 0.5),
    st.sampled_from([0.001, 0.01, 0.05, 0.2]),
)
def test_rejecting_means_a_p_value_within_the_level(line, n1, n0, z, level) -> None:
    where = Line(line[0], line[1], n1, n0)
    assert rejects(where, z, level) == (p_value(where, z) <= level)


@pytest.mark.parametrize(("n1", "n0", "alpha"), [(3, 7, 0.05), (5, 5, 0.02)])
def test_exact_upper_bounds_err_at_most_as_often_as_they_say(n1, n0, alpha) -> None:
    upper = np.array(
        [
            [difference_upper(a, n1, b, n0, alpha) for b in range(n0 + 1)]
            for a in range(n1 + 1)
        ]
    )
    grid = np.linspace(0, 1, 26)
    worst = max(
        float(chances(n1, n0, p1, p0)[upper < p1 - p0 - 1e-12].sum())
        for p1 in grid
        for p0 in grid
    )
    assert worst <= alpha


def test_the_method_depends_on_sizes_and_level_only() -> None:
    assert method(590, 3_256, 0.05) == CHAN_ZHANG
    assert method(5_421, 10_860, 0.05) == MIETTINEN_NURMINEN
    assert method(5_421, 10_860, 0.005) == CHAN_ZHANG
    assert method(25_000, 30_000, 0.005) == MIETTINEN_NURMINEN


def test_exact_and_normal_bounds_are_neighbours_and_the_exact_one_is_wider() -> None:
    exact = chan_zhang(40, 118, 500, 900, 0.05)
    normal = miettinen_nurminen(40, 118, 500, 900, 0.05)
    assert exact == pytest.approx(normal, abs=0.006)
    assert exact[0] < normal[0] < normal[1] < exact[1]
    assert difference_upper(40, 118, 500, 900, 0.05) == exact[1]
    assert difference_lower(40, 118, 500, 900, 0.05) == exact[0]


def test_large_samples_take_the_normal_law() -> None:
    sides = miettinen_nurminen(1_000, 6_000, 1_200, 6_500, 0.05)
    assert difference_lower(1_000, 6_000, 1_200, 6_500, 0.05) == sides[0]
    assert difference_upper(1_000, 6_000, 1_200, 6_500, 0.05) == sides[1]


@settings(deadline=None, max_examples=6)
@given(st.sampled_from(LINES), st.integers(2, 15), st.integers(2, 15))
def test_many_tables_at_once_are_judged_as_one_by_one(line, n1, n0) -> None:
    where = Line(line[0], line[1], n1, n0)
    x1, x0 = np.broadcast_arrays(*tables(n1, n0))
    together = shows_below(x1, x0, where, 0.05)
    z = where.statistic(x1, x0)
    alone = [rejects(where, float(v), 0.05) for v in z.ravel()]
    assert together.ravel().tolist() == alone
    above = shows_above(x0, x1, where.swapped, 0.05)
    assert np.array_equal(above, together)


def test_a_line_beyond_all_rates_needs_no_test() -> None:
    assert shows_below(3, 0, Line("difference", 1.0, 5, 5), 0.05)
    assert not shows_below(0, 5, Line("difference", -1.0, 5, 5), 0.05)
    assert shows_below(3, 0, Line("ratio", math.inf, 5, 5), 0.05)
    assert not shows_above(3, 0, Line("ratio", math.inf, 5, 5), 0.05)
    assert p_above(3, 0, Line("ratio", math.inf, 5, 5)) == 1.0
    assert p_above(3, 0, Line("difference", -1.0, 5, 5)) == 0.0


def test_an_empty_sample_shows_nothing() -> None:
    assert not shows_below(0, 5, Line("difference", 0.9, 0, 5), 0.05)
    assert p_above(0, 0, Line("difference", 0.0, 0, 5)) == 1.0
    assert difference_upper(0, 0, 5, 5, 0.05) == 1.0
    assert difference_lower(0, 0, 5, 5, 0.05) == -1.0


def test_p_above_is_the_normal_one_for_very_large_samples() -> None:
    line = Line("difference", 0.0, 30_000, 40_000)
    z = line.swapped.statistic(10_000, 10_100)
    assert p_above(10_100, 10_000, line) == pytest.approx(
        stats.norm.cdf(line.swapped.statistic(10_000, 10_100)), rel=1e-9
    )
    assert z < 0


def test_a_ratio_of_one_is_a_difference_of_zero() -> None:
    x1, x0 = tables(17, 23)
    ratio = shows_below(x1, x0, Line("ratio", 1.0, 17, 23), 0.05)
    difference = shows_below(x1, x0, Line("difference", 0.0, 17, 23), 0.05)
    assert np.array_equal(ratio, difference)


def test_ratio_bounds_invert_their_own_test() -> None:
    bound = ratio_upper(20, 60, 50, 90, 0.05)
    assert 20 / 60 / (50 / 90) < bound < 1
    assert shows_below(20, 50, Line("ratio", bound * 1.001, 60, 90), 0.05)
    assert not shows_below(20, 50, Line("ratio", bound * 0.999, 60, 90), 0.05)
    assert ratio_upper(5, 10, 0, 10, 0.05) > 1_000


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


def test_holm_adjusts_as_in_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_impossible_counts_and_levels_are_one_clear_sentence() -> None:
    with pytest.raises(InputError, match="hits between 0 and 5, found 6"):
        difference_upper(6, 5, 1, 5, 0.05)
    with pytest.raises(InputError, match=r"between 0 and \.5, found 0\.7"):
        clopper_pearson(1, 5, 0.7)


def true_error(n: int, delta: float, alpha: float, p_value: Any) -> float:
    """Largest P(a gain above delta is shown | it is delta), by enumeration."""
    b, c = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    b, c = b[b + c <= n], c[b + c <= n]
    shows = p_value(b, c, n, delta) <= alpha
    ways = gammaln(n + 1) - gammaln(b + 1) - gammaln(c + 1) - gammaln(n - b - c + 1)
    errors = []
    # From the edge, where the second model is right nowhere alone.
    for discordant in delta + np.geomspace(1e-9, 0.3, 25):
        rates = (discordant + delta) / 2, (discordant - delta) / 2
        log_p = b * np.log(rates[0]) + c * np.log(rates[1])
        log_p += ways + (n - b - c) * np.log1p(-discordant)
        errors.append(np.exp(log_p[shows]).sum())
    return float(max(errors))


@pytest.mark.parametrize("alpha", [0.05, 0.0125])
@pytest.mark.parametrize("n", [60, 120, 200])
def test_a_gain_over_a_constant_is_shown_wrongly_hardly_more_than_alpha(
    n: int, alpha: float
) -> None:
    deltas = (0.001, 0.005, 0.01, 0.02, 0.05, 0.1)
    for delta in deltas:
        assert true_error(n, delta, alpha, gain_p_above) <= 1.2 * alpha
    plain = [
        true_error(n, d, alpha, lambda *a: ndtr(-tango_statistic(*a))) for d in deltas
    ]
    # Why Tango's test alone would not do.
    assert max(plain) > 1.25 * alpha


def test_a_gain_is_never_easier_to_show_than_by_tangos_test() -> None:
    for b, c in ((60, 12), (3, 30), (40, 50), (5, 5), (1, 0), (0, 0)):
        for delta in (-0.01, 0.0, 0.001, 0.05):
            plain = ndtr(-tango_statistic(b, c, 1_000, delta))
            found = float(gain_p_above(b, c, 1_000, delta))
            # Above one half neither shows anything.
            assert found >= min(0.5, float(plain))
            assert delta > 0 or found == plain
    many = gain_p_above(np.array([1, 60]), np.array([0, 12]), 1_000, 0.01)
    assert many.shape == (2,)
    assert many[1] == gain_p_above(60, 12, 1_000, 0.01)
