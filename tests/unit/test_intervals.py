"""Bounds: against published values, scipy, brute force and their own promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr

from safescale_ammt.binomial.exact import Kind, Line
from safescale_ammt.binomial.intervals import (
    clopper_pearson,
    holm,
    rate_p_above,
    rate_p_below,
)
from safescale_ammt.binomial.two_rates import (
    BERGER_BOOS,
    CHAN_ZHANG,
    difference_lower,
    difference_upper,
    method,
    miettinen_nurminen,
    p_above,
    p_below,
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
    tables_below = np.argwhere(z < -0.5)
    for x1, x0 in tables_below[:: max(1, len(tables_below) // 6)]:
        brute = max(float(w[z <= z[x1, x0] + 1e-9].sum()) for w in weights)
        ours = p_below(x1, x0, line)
        assert brute - 1e-9 <= ours <= 1.05 * brute + 1e-8


def test_the_exact_test_at_gap_zero_is_barnards() -> None:
    for x1, n1, x0, n0 in [(2, 15, 8, 15), (1, 20, 7, 25), (12, 30, 20, 28)]:
        ours = p_below(x1, x0, Line("difference", 0.0, n1, n0))
        reference = stats.barnard_exact(
            [[x1, x0], [n1 - x1, n0 - x0]], alternative="less", n=256
        )
        assert ours == pytest.approx(reference.pvalue, rel=0.03)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(LINES), st.sampled_from([0.001, 0.01, 0.05, 0.2]))
def test_a_table_is_shown_where_its_p_value_is_within_the_level(
    data, line, level
) -> None:
    # Samples of both kinds: those with all nuisance rates, and with an interval.
    n1 = data.draw(st.sampled_from([1, 9, 40, 300, 6_000, 40_000]))
    n0 = data.draw(st.sampled_from([1, 9, 40, 300, 6_000, 40_000]))
    where = Line(line[0], line[1], n1, n0)
    p0 = data.draw(st.floats(0, 1))
    p1 = float(where.p1(np.asarray(p0)))
    apart = data.draw(st.floats(-4, 0.5)) * math.sqrt(0.25 / n1 + 0.25 / n0)
    x1 = int(np.clip(round(n1 * (p1 + apart)), 0, n1))
    x0 = round(n0 * p0)
    p = p_below(x1, x0, where)
    assert 0 < p <= 1
    assert bool(shows_below(x1, x0, where, level)) == (p <= level)
    assert p_below(x1, x0, where, level) == p or p > level


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


def test_the_method_depends_on_the_sizes_only() -> None:
    for kind, at in LINES:
        assert method(Line(kind, at, 590, 3_256)) == CHAN_ZHANG
        assert method(Line(kind, at, 60, 200_000)) == BERGER_BOOS
        assert method(Line(kind, at, 5_421, 10_860)) == BERGER_BOOS


@pytest.mark.parametrize("table", [(40, 118, 500, 900), (900, 6_000, 1_100, 6_500)])
def test_exact_and_normal_bounds_are_neighbours_and_the_exact_one_is_wider(
    table,
) -> None:
    normal = miettinen_nurminen(*table, 0.05)
    exact = difference_lower(*table, 0.05), difference_upper(*table, 0.05)
    error = (normal[1] - normal[0]) / 3.29
    assert exact == pytest.approx(normal, abs=0.2 * error)
    assert exact[0] < normal[0] < normal[1] < exact[1]


@settings(deadline=None, max_examples=6)
@given(st.sampled_from(LINES), st.integers(2, 15), st.integers(2, 15))
def test_many_tables_at_once_are_judged_as_one_by_one(line, n1, n0) -> None:
    where = Line(line[0], line[1], n1, n0)
    x1, x0 = np.broadcast_arrays(*tables(n1, n0))
    together = shows_below(x1, x0, where, 0.05)
    alone = [
        bool(shows_below(a, b, where, 0.05))
        for a, b in zip(x1.ravel(), x0.ravel(), strict=True)
    ]
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


@pytest.mark.parametrize("n", [(30_000, 40_000), (1_000_000, 900_000)])
def test_in_very_large_samples_the_p_value_is_just_above_the_normal_one(n) -> None:
    line = Line("difference", 0.0, *n)
    x0 = n[1] // 3
    x1 = round(n[0] / 3 + 2 * math.sqrt(n[0] * n[0] / n[1] * 2 / 9 + n[0] * 2 / 9))
    normal = float(ndtr(line.swapped.statistic(x0, x1)))
    assert normal < p_above(x1, x0, line) < 1.04 * normal


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


def test_holm_adjusts_as_in_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_impossible_counts_and_levels_are_one_clear_sentence() -> None:
    with pytest.raises(InputError, match="hits between 0 and 5, found 6"):
        difference_upper(6, 5, 1, 5, 0.05)
    with pytest.raises(InputError, match=r"between 0 and \.5, found 0\.7"):
        clopper_pearson(1, 5, 0.7)


@pytest.mark.parametrize(
    ("kind", "at", "n1", "n0"),
    [
        ("difference", math.nan, 9, 9),
        ("ratio", math.nan, 9, 9),
        ("ratio", -1.0, 9, 9),
        ("difference", 0.1, -1, 9),
        ("ratio", 1.0, 9, -1),
    ],
)
def test_what_is_no_line_shows_nothing_but_a_sentence(
    kind: Kind, at: float, n1: int, n0: int
) -> None:
    """A ratio that is no number would be above every rate, with a p-value of 0."""
    with pytest.raises(InputError, match="No line between two rates"):
        Line(kind, at, n1, n0)
