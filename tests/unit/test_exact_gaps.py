"""Few cells are asked and all are bounded: against asking each, and enumeration."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from safescale_ammt.binomial.cells import SPENT, Gaps, Span
from safescale_ammt.binomial.exact import Kind, Line
from safescale_ammt.binomial.paired import (
    Discordant,
    discordance,
    gain_bounds,
    gain_p_above,
    shows_gain,
)
from safescale_ammt.binomial.region import TwoRates, border
from safescale_ammt.binomial.supremum import exceeded, peak, rejects, shown, supremum
from safescale_ammt.binomial.two_rates import (
    difference_lower,
    difference_upper,
    p_above,
    p_below,
    ratio_upper,
    shows_below,
)
from safescale_ammt.binomial.windows import Windows

LINES: list[tuple[Kind, float]] = [
    *(("difference", -0.6), ("difference", -0.05), ("difference", 0.0)),
    *(("difference", 0.005), ("difference", 0.3), ("difference", 0.97)),
    *(("ratio", 0.1), ("ratio", 0.8), ("ratio", 1.0), ("ratio", 1.25), ("ratio", 40.0)),
]
SIZES = [(1, 1), (1, 60), (60, 1), (7, 9), (90, 40), (20, 700), (700, 20), (400, 400)]
# Masses outside the windows are counted where a cell is asked, not between.
OUTSIDE = 4e-9


def whole(line: Line) -> Span:
    """All cells of a small line, or those of a table in the middle of a large one."""
    middle = np.array([line.n1 // 3]), np.array([line.n0 // 3])
    return line.spans(*middle).of(np.array([True]))


@pytest.mark.parametrize(("kind", "at"), LINES)
@pytest.mark.parametrize("sizes", SIZES)
def test_cells_between_two_that_are_known_stay_below_their_bound(
    sizes: tuple[int, int], kind: Kind, at: float
) -> None:
    line = Line(kind, at, *sizes)
    span = whole(line)
    cells = np.arange(span.first, span.last)
    for z in (-0.4, -1.7, -4.0):
        region = TwoRates(line, z, span)
        ceilings = region.narrow(cells)
        for width in (2, 5, 16, len(cells) // 3):
            first = np.unique(np.append(np.arange(0, len(cells) - width, width), 0))
            last = np.minimum(first + width, len(cells) - 1)
            ends = np.stack([ceilings[first], ceilings[last]])
            bounds = region.between(cells[first], cells[last], ends)
            for a, b, bound in zip(first, last, bounds, strict=True):
                assert ceilings[a + 1 : b].max(initial=0.0) <= bound + OUTSIDE


@pytest.mark.parametrize(("kind", "at"), [LINES[1], LINES[3], LINES[9]])
def test_a_bound_of_a_narrow_gap_is_hardly_above_what_it_bounds(kind, at) -> None:
    line = Line(kind, at, 400, 600)
    span = whole(line)
    region = TwoRates(line, -1.7, span)
    cells = np.arange(span.grid // 4, span.grid // 2, 8)
    ceilings = region.narrow(cells)
    bounds = region.between(
        cells[:-1], cells[1:], np.stack([ceilings[:-1], ceilings[1:]])
    )
    assert (bounds < 1.01 * np.maximum(ceilings[:-1], ceilings[1:])).all()


def regions() -> list[tuple[Any, Span]]:
    """Regions of two rates and of two models, with the spans that they search."""
    found: list[tuple[Any, Span]] = []
    for n1, n0, kind, at, z in (
        *((300, 280, "difference", 0.02, -1.7), (40, 900, "ratio", 1.25, -1.2)),
        *((900, 40, "ratio", 0.8, -2.5), (6_000, 9_000, "difference", 0.01, -1.65)),
    ):
        line = Line("ratio" if kind == "ratio" else "difference", at, n1, n0)
        found.append((TwoRates(line, z, whole(line)), whole(line)))
    for n, delta in ((500, -0.01), (20_000, 0.02)):
        span = discordance(np.array([n // 9]), n, delta).of(np.array([True]))
        found.append((Discordant(n, delta, -1.7, span), span))
    return found


@pytest.mark.parametrize("which", range(6))
def test_the_largest_ceiling_is_found_as_if_every_cell_had_been_asked(which) -> None:
    region, span = regions()[which]
    most = float(region.narrow(np.arange(span.first, span.last)).max())
    assert peak(region, span, 0.0) == pytest.approx(most, abs=1e-12)
    assert peak(region, span, 2 * most) == 2 * most
    assert supremum(region, span, 1.0) == pytest.approx(most + span.spent, abs=1e-12)
    for level in (most * 0.999, most * 1.001):
        assert rejects(region, span, level + span.spent) == (level > most)


@pytest.mark.parametrize("which", range(6))
def test_spans_with_too_probable_a_cell_are_those_that_asking_each_cell_finds(
    which,
) -> None:
    region, span = regions()[which]
    ceilings = region.narrow(np.arange(span.first, span.last))
    rng = np.random.default_rng(which)
    ends = np.sort(rng.integers(0, len(ceilings) + 1, (2, 60)), axis=0) + span.first
    spans = Span(ends[0], ends[1], span.grid)
    for level in np.quantile(ceilings, [0.0, 0.3, 0.9, 0.999]) * (1 + 1e-9):
        found, worst = exceeded(region, spans, float(level))
        for first, last, is_found in zip(*ends, found, strict=True):
            held = ceilings[first - span.first : last - span.first]
            assert is_found == (held.max(initial=0.0) > level)
        assert span.first <= worst < span.last


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([0.3, 0.05, 0.002]))
def test_many_tables_are_judged_as_by_asking_each_cell_of_each(seed, level) -> None:
    rng = np.random.default_rng(seed)
    grid = 96
    # Whatever rises with z is a probability here, also one that is not smooth in t.
    height = 0.4 + 0.6 * rng.uniform(0, 1, grid)

    class Steps:
        order = 1

        def __init__(self, z: float, span: Span) -> None:
            self.chance = height * stats.norm.cdf(z)

        def narrow(self, cells: np.ndarray) -> np.ndarray:
            return self.chance[cells]

        def between(self, first, last, ends) -> np.ndarray:
            both = zip(first, last, strict=True)
            return np.array([self.chance[a : b + 1].max() for a, b in both])

        def ceiling(self, left, right) -> np.ndarray:
            raise NotImplementedError

    first = rng.integers(0, grid, 40)
    last = np.minimum(first + rng.integers(0, 60, 40), grid)
    for spent in (0.0, SPENT):
        z = rng.normal(-1.5, 1, 40)
        spans = Span(first, last, grid, spent)
        found = shown(Steps, z, spans, level)
        at = np.ceil(z / 0.005) * 0.005 if spent else z
        for i in range(40):
            most = (height[first[i] : last[i]] * stats.norm.cdf(at[i])).max(initial=0)
            assert found[i] == (z[i] < 0 and most <= level - spent)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.integers(1, 200), st.integers(0, 5_000))
def test_a_border_is_found_from_any_guess(data, number, top) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1_000)))
    true = np.sort(rng.integers(-5, top + 7, number))
    guess = true + data.draw(st.sampled_from([0, 1, -1, 40, -900, 10**6]))
    found = border(lambda a, hits: hits >= true[a], np.arange(number), top, guess)
    assert found.tolist() == np.clip(true, 0, top + 1).tolist()


@pytest.mark.parametrize(("kind", "at"), LINES)
@pytest.mark.parametrize("sizes", [(3, 5), (60, 200), (400, 15), (2_000, 2_000)])
def test_regions_are_what_the_statistic_says_table_by_table(sizes, kind, at) -> None:
    line = Line(kind, at, *sizes)
    for z in (-1.3, -3.0):
        region = TwoRates(line, z, whole(line))
        for a in region.small.x[:: max(1, len(region.small.x) // 23)]:
            hits = np.arange(region.large.n + 1)
            table = (a, hits) if region.first_small else (line.n1 - hits, a)
            within = np.flatnonzero(line.statistic(*table) <= z + 1e-9)
            expected = within[0] if len(within) else region.large.n + 1
            assert region.least[a - region.small.x[0]] == expected


@pytest.mark.parametrize("n", [1, 7, 300, 70_000])
def test_the_largest_mass_between_two_rates_is_at_an_end_or_at_the_share(n) -> None:
    window = Windows(n, 0.0, 1.0)
    for low, high in ((0.0, 0.2), (0.31, 0.3101), (0.4, 0.95), (0.99, 1.0), (0.0, 1.0)):
        ends = np.array([low]), np.array([high])
        start, width = window.places(*ends)
        x = window.x[start[0] : start[0] + width]
        expected = stats.binom.pmf(x, n, np.clip(x / n, low, high))
        assert window.largest(start, width, *ends)[0] == pytest.approx(
            expected, rel=1e-6, abs=1e-12
        )


@pytest.mark.parametrize(("kind", "at"), LINES[1:5] + LINES[7:10])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 30), (24, 17), (70, 60), (200, 9)])
def test_no_p_value_is_smaller_than_the_supremum_that_enumeration_finds(
    sizes, kind, at
) -> None:
    n1, n0 = sizes
    line = Line(kind, at, n1, n0)
    edge = np.geomspace(1e-3, 0.05, 40)
    p0 = line.nuisance(np.concatenate([np.linspace(0, 1, 120), edge, 1 - edge]))
    x1, x0 = (t.ravel() for t in np.indices((n1 + 1, n0 + 1)))
    mass = stats.binom.pmf(x1[:, None], n1, line.p1(p0))
    mass = mass * stats.binom.pmf(x0[:, None], n0, p0)
    z = line.statistic(x1, x0)
    tables = np.flatnonzero(z < -0.2)
    for i in tables[:: max(1, len(tables) // 12)]:
        true = float(mass[z <= z[i] + 1e-9].sum(axis=0).max())
        p = p_below(int(x1[i]), int(x0[i]), line)
        assert true - 1e-9 <= p
        assert p <= 1.1 * true + 1e-8 or true > 0.5


# Upper bounds of the difference and of the ratio at commit b82994b, where every cell
# was asked: 1.5 to 10 s for these.
RECORDED = [
    ((180, 590, 1_000, 3_256, 0.05), 0.03376185690309773, 1.1102240648646517),
    ((3, 1_500, 5, 1_500, 0.001), 0.00693749287145088, 6.377985979042833),
    ((2_250, 2_500, 2_240, 2_500, 0.0125), 0.02339951970974356, 1.026500458464546),
    ((0, 300, 9, 4_700, 0.05), 0.009318408329998522, 4.814142629866295),
    ((40, 4_700, 4, 300, 0.05), 0.003763210712555029, 2.475342660292776),
    ((900, 6_000, 1_100, 6_500, 0.05), -0.008339450040591749, 0.9491598375522219),
    ((4, 20, 90, 4_000, 0.01), 0.5405619105049223, 22.41473996530775),
    ((60, 20_000, 40, 20_000, 0.001), 0.0026471965765105564, 2.899263506524871),
]


@pytest.mark.parametrize(("table", "difference", "ratio"), RECORDED)
def test_bounds_are_the_same_as_when_every_cell_was_asked(
    table, difference, ratio
) -> None:
    assert difference_upper(*table) == pytest.approx(difference, rel=1e-12)
    assert ratio_upper(*table) == pytest.approx(ratio, rel=1e-12)


@pytest.mark.parametrize(
    ("table", "bounds"),
    [
        ((12, 30, 200, 0.05), (-0.1449540664766151, -0.03554508963909094)),
        ((260, 300, 5_000, 0.01), (-0.019129065661668776, 0.0030781472856700404)),
        ((3_000, 2_900, 20_000, 0.05), (-0.0013492115517202761, 0.011365395144730808)),
    ],
)
def test_bounds_of_gains_are_the_same_as_before(table, bounds) -> None:
    assert gain_bounds(*table) == pytest.approx(bounds, rel=1e-12)


@pytest.mark.parametrize(
    ("line", "x1", "x0", "p"),
    [
        (Line("difference", 0.05, 590, 3_256), 330, 1_960, 2.81752260818985e-05),
        (Line("ratio", 1.25, 1_500, 1_500), 290, 280, 0.00696591391260026),
        (Line("difference", 0.0, 2_500, 2_500), 700, 790, 0.0028049671130996475),
        (Line("ratio", 0.8, 4_700, 300), 300, 40, 0.03073228347236895),
        (Line("difference", 0.02, 9_000, 30_000), 2_600, 9_000, 1.0963571570439746e-07),
    ],
)
def test_p_values_are_the_same_as_before_but_for_rounding(line, x1, x0, p) -> None:
    assert p_below(x1, x0, line, 1.0) == pytest.approx(p, abs=1e-9)


@pytest.mark.parametrize("sizes", [(2_500, 2_500), (300, 4_700), (20_000, 20_000)])
def test_a_test_of_a_large_table_asks_for_few_of_its_cells(sizes) -> None:
    line = Line("difference", 0.01, *sizes)
    span = whole(line)
    asked: list[int] = []

    class Counted(TwoRates):
        def narrow(self, cells: np.ndarray) -> np.ndarray:
            asked.extend(cells)
            return super().narrow(cells)

    for z in (-1.5, -1.64, -1.7, -2.2):
        asked.clear()
        rejects(Counted(line, z, span), span, 0.05)
        assert len(asked) <= 1_000
        assert len(asked) < (span.last - span.first) / 4
        assert len(set(asked)) == len(asked)


@pytest.mark.parametrize("alpha", [1e-6, 0.05, 0.499])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 4_000), (200_000, 20), (20, 200_000)])
def test_tables_of_none_or_all_have_bounds_on_their_point_s_outer_side(
    sizes, alpha
) -> None:
    n1, n0 = sizes
    for x1, x0 in ((0, 0), (n1, n0), (0, n0), (n1, 0)):
        point = x1 / n1 - x0 / n0
        lower = difference_lower(x1, n1, x0, n0, alpha)
        upper = difference_upper(x1, n1, x0, n0, alpha)
        assert -1 <= lower <= point <= upper <= 1
        ratio = ratio_upper(x1, n1, x0, n0, alpha)
        assert ratio == math.inf or ratio >= (x1 / n1) / max(x0 / n0, 1e-300)
        for at in (0.0, 0.5):
            line = Line("difference", at, n1, n0)
            assert 0 < p_below(x1, x0, line) <= 1
            assert 0 < p_above(x1, x0, line) <= 1
    for at in (-1.0, 1.0):
        line = Line("difference", at, n1, n0)
        assert bool(shows_below(0, n0, line, alpha)) == (at > 0)


@pytest.mark.parametrize("n", [1, 2, 20_000])
def test_two_models_that_differ_nowhere_or_everywhere_have_bounds(n) -> None:
    for b, c in ((0, 0), (n, 0), (0, n), (n // 2, n - n // 2)):
        for alpha in (1e-6, 0.499):
            lower, upper = gain_bounds(b, c, n, alpha)
            assert -1 <= lower <= (b - c) / n <= upper <= 1
        assert 0 < gain_p_above(b, c, n, 0.0) <= 1


def test_nothing_is_shown_at_a_level_that_the_interval_spends() -> None:
    line = Line("difference", 0.5, 10_000, 10_000)
    x1 = np.zeros(3, dtype=np.int64)
    for level in (0.0, SPENT / 2, SPENT):
        assert not shows_below(x1, x1 + 10_000, line, level).any()
        assert not shows_gain(x1 + 9_000, x1, 10_000, -0.5, level).any()
    assert shows_below(x1, x1 + 10_000, line, 2 * SPENT).all()


def test_no_gap_is_left_of_a_span_of_one_cell_or_none() -> None:
    line = Line("difference", 0.0, 9, 9)
    for last in (3, 4):
        span = Span(np.int64(3), np.int64(last), 64)
        region = TwoRates(line, -1.0, span)
        gaps = Gaps.over(region, span)
        assert len(gaps.cells) == last - 3
        assert not len(gaps.kept(gaps.bound >= 0).bound)
        assert peak(region, span, 0.0) == gaps.values.max(initial=0.0)
