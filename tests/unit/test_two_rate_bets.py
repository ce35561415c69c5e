"""Bets on two rates: fair below the line, right by hand, and quick beyond it."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binom

from safescale_ammt.binomial.two_rate_bets import (
    BELIEFS,
    EXCESSES,
    beliefs,
    log_bets,
    nearest_on_line,
)

TAU = np.array(0.0)
HALVES = np.tile([0.75, 0.25], (BELIEFS, 1))
rates = st.floats(0.02, 0.98)


@pytest.mark.parametrize(
    ("hits", "value"), [((1, 0), 2.25), ((1, 1), 0.75), ((0, 0), 0.75), ((0, 1), 0.25)]
)
def test_the_bet_of_one_pair_is_what_paper_and_pencil_give(
    hits: tuple[int, int], value: float
) -> None:
    # Nearest to (3/4, 1/4) on "equal" is (1/2, 1/2): factors 3/2 and 1/2.
    found = log_bets(np.array(hits, float), np.ones(2), TAU, HALVES)
    assert np.exp(found) == pytest.approx([value] * BELIEFS)


@given(rates, rates, st.floats(0, 0.5), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None, max_examples=50)
def test_the_nearest_rates_on_the_line_are_those_that_a_search_finds(
    a: float, b: float, tau: float, n_a: int, n_b: int
) -> None:
    if a - b <= tau + 1e-3:
        return
    q, sizes = np.array([a, b]), np.array([n_a, n_b], float)

    def divergence(x: float) -> float:
        o = np.array([x, x - tau])
        each = q * np.log(q / o) + (1 - q) * np.log((1 - q) / (1 - o))
        return float(sizes @ each)

    best = minimize_scalar(divergence, bounds=(b + tau, a), method="bounded")
    found = nearest_on_line(q, sizes, np.array(tau))
    assert found[0] - found[1] == pytest.approx(tau)
    assert divergence(found[0]) <= best.fun + 1e-9


@given(
    st.tuples(rates, rates),
    st.tuples(rates, rates),
    st.floats(0, 0.4),
    st.integers(1, 6),
    st.integers(1, 6),
)
@settings(deadline=None, max_examples=60)
def test_a_bet_against_a_promise_that_is_kept_gains_nothing_on_average(
    believed: tuple[float, float],
    true: tuple[float, float],
    tau: float,
    n_a: int,
    n_b: int,
) -> None:
    # Whatever the belief, and on the line itself too.
    p_a = min(true[0], true[1] + tau)
    sizes = np.array([n_a, n_b], float)
    mean = 0.0
    for h_a, h_b in itertools.product(range(n_a + 1), range(n_b + 1)):
        chance = binom.pmf(h_a, n_a, p_a) * binom.pmf(h_b, n_b, true[1])
        hits, every = np.array([h_a, h_b], float), np.tile(believed, (BELIEFS, 1))
        mean += chance * math.exp(log_bets(hits, sizes, np.array(tau), every)[0])
    assert mean <= 1 + 1e-9


def test_no_bet_is_made_without_rows_of_both_groups_or_a_belief_beyond_the_line() -> (
    None
):
    one_sided = log_bets(np.array([3.0, 0]), np.array([3.0, 0]), TAU, HALVES)
    below = log_bets(np.ones(2), np.ones(2), np.array(0.5), HALVES)
    assert (one_sided == 0).all()
    assert (below == 0).all()


@given(
    st.tuples(st.integers(0, 50), st.integers(0, 50)),
    st.floats(0, 1),
)
@settings(deadline=None)
def test_beliefs_are_rates_and_lie_beyond_the_line_where_it_leaves_room(
    hits: tuple[int, int], tau: float
) -> None:
    sizes = np.array([50.0, 50])
    found = beliefs(np.array(hits, float), sizes, np.array(tau))
    assert found.shape == (BELIEFS, 2)
    assert ((found > 0) & (found < 1)).all()
    for excess, (a, b) in zip(EXCESSES, found[1:], strict=True):
        if tau + excess < 0.97:
            assert a - b == pytest.approx(tau + excess)


def alarms(
    p_a: float, p_b: float, tau: float, sizes: tuple[int, int], alpha: float
) -> np.ndarray:
    """Returns the block of the first alarm of 2,000 streams, 0 where there is none."""
    rng, streams = np.random.default_rng(7), 2000
    n, line = np.array(sizes, float), np.full(streams, tau)
    hits, rows = np.zeros((streams, 2)), np.zeros((streams, 2))
    logs, first = np.zeros((streams, BELIEFS)), np.zeros(streams, int)
    for block in range(1, 61):
        new = rng.binomial(sizes, (p_a, p_b), (streams, 2)).astype(float)
        each = np.broadcast_to(n, new.shape)
        logs += log_bets(new, each, line, beliefs(hits, rows, line))
        hits, rows = hits + new, rows + each
        first[(first == 0) & (np.exp(logs).mean(1) >= 1 / alpha)] = block
    return first


@pytest.mark.parametrize("sizes", [(10, 10), (4, 22), (30, 5)])
@pytest.mark.parametrize(("low", "tau"), [(0.5, 0.05), (0.05, 0.08), (0.9, 0.0)])
def test_at_the_boundary_no_more_streams_alarm_than_alpha_allows(
    sizes: tuple[int, int], low: float, tau: float
) -> None:
    share = (alarms(low + tau, low, tau, sizes, alpha=0.1) > 0).mean()
    # Three standard errors of 2,000 streams.
    assert share <= 0.1 + 3 * math.sqrt(0.09 / 2000)


def test_a_gap_of_fifteen_points_is_seen_within_three_hundred_pairs() -> None:
    # Demographic parity on Adult: one woman and two men a pair, alpha .01, both signs.
    first = alarms(0.24, 0.09, 0.05, (20, 10), alpha=0.005)
    assert (first > 0).mean() > 0.9
    assert np.median(first) * 10 <= 300
