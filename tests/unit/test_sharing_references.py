"""The sharing operator against other code, its equations and its symmetries."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import trim_mean
from test_sync import rule, share
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from safescale_ammt.model.genome import Genome
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.genome_nets import GenomeLearner
from safescale_ammt.training.sync import AGGREGATES

GAUSSIAN = st.integers(0, 2**31)
"""Seeds: weights of a continuous law have no ties, which rounding would decide."""


def drawn(seed: int, k: int, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(k, width, generator=generator, dtype=torch.float64)


# --- aggregates, by other libraries ---


@given(GAUSSIAN, st.integers(1, 12))
@settings(deadline=None)
def test_aggregates_are_those_of_numpy_and_scipy(seed: int, k: int) -> None:
    theta, scores = drawn(seed, k), drawn(seed + 1, k, 1)[:, 0] / 100
    rows = theta.numpy()
    weights = softmax(scores.numpy() / 0.002)
    expected = {
        "mean": rows.mean(0),
        "median": np.median(rows, axis=0),
        "trimmed_mean": trim_mean(rows, 0.2, axis=0),
        "fitness": weights @ rows,
    }
    assert set(expected) == set(AGGREGATES)
    for name, aggregate in AGGREGATES.items():
        np.testing.assert_allclose(aggregate(theta, scores), expected[name], atol=1e-9)


# --- methods, by their equations ---


def test_local_sgd_is_averaging_after_h_steps_of_each_worker() -> None:
    """Stich 2019, algorithm 1, on quadratics with another centre for each worker."""
    k, every, rate = 4, 5, 0.1
    centres = drawn(0, k)
    ours, sharing = torch.zeros(k, 5, dtype=torch.float64), None
    theirs = torch.zeros(k, 5, dtype=torch.float64)
    sharing = rule(ours[0], self_weight=0.0)
    for step in range(1, 41):
        ours -= rate * (ours - centres)
        theirs -= rate * (theirs - centres)
        if step % every == 0:
            share(ours, sharing)
            theirs = theirs.mean(0).expand(k, 5).clone()
            torch.testing.assert_close(ours, theirs)
    # All start at one point and their mean's way is that of SGD on the mean's loss.
    whole = centres.mean(0) * (1 - (1 - rate) ** 40)
    torch.testing.assert_close(ours[0], whole)


@given(GAUSSIAN, st.integers(2, 9), st.floats(0, 1))
@settings(deadline=None)
def test_papa_moves_every_agent_by_its_equation(seed: int, k: int, a: float) -> None:
    """Jolicoeur-Martineau et al. 2024: w_i <- a w_i + (1 - a) mean_j w_j."""
    theta = drawn(seed, k)
    expected = a * theta + (1 - a) * theta.mean(0)
    done = share(theta, rule(theta.mean(0), self_weight=a))
    if all(done.teachers):
        torch.testing.assert_close(theta, expected)


def test_an_exponential_average_is_torch_s() -> None:
    """`ema`: averages of the weights after each step, as `swa_utils` has them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=generator)
    y = torch.randint(0, 2, (64,), generator=generator)
    rows = EncodedRows(x, y, {}, None)
    genome, n = Genome(widths=(), dropout=0.0), 7
    start = torch.randn(1, n, generator=generator) / 10
    learner = GenomeLearner(
        genome, rows, start, n_out=1, ema=0.9, stability=1e3, seed=0
    )
    model = nn.Module()
    model.theta = nn.Parameter(start.clone())
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    averaged.update_parameters(model)  # the first call copies, and ours starts there
    for _ in range(20):
        batch = torch.randint(0, 64, (1, 16), generator=generator)
        learner.step(batch, batch[:, :0], torch.zeros(0), 0.01)
        with torch.no_grad():
            model.theta.copy_(learner.theta)
        averaged.update_parameters(model)
        torch.testing.assert_close(learner.averaged, averaged.module.theta.data)


def test_a_soup_is_torch_s_stochastic_weight_average() -> None:
    theta = drawn(3, 5)
    model = nn.Module()
    model.theta = nn.Parameter(theta[0].clone())
    averaged = AveragedModel(model)
    for row in theta:
        with torch.no_grad():
            model.theta.copy_(row)
        averaged.update_parameters(model)
    found = AGGREGATES["mean"](theta, torch.zeros(5))
    torch.testing.assert_close(found, averaged.module.theta.data)


# --- symmetries ---


@given(GAUSSIAN, st.integers(1, 9), st.sampled_from(sorted(AGGREGATES)), st.data())
@settings(deadline=None)
def test_a_round_does_not_know_the_order_of_the_agents(
    seed: int, k: int, name: str, data: st.DataObject
) -> None:
    order = torch.tensor(data.draw(st.permutations(range(k))))
    theta, fitness = drawn(seed, k), drawn(seed + 1, k, 1)[:, 0] / 100
    changes = {"self_weight": 0.3, "sharing": name, "outer_momentum": 0.5}
    start = drawn(seed + 2, 1)[0]
    one, other = rule(start, **changes), rule(start, **changes)
    turned = theta[order].clone()
    done = share(theta, one, fitness=lambda: fitness)
    again = share(turned, other, fitness=lambda: fitness[order])
    torch.testing.assert_close(turned, theta[order])
    torch.testing.assert_close(other.consensus, one.consensus)
    assert [again.teachers[i] for i in range(k)] == [
        done.teachers[i] for i in order.tolist()
    ]


@given(GAUSSIAN, st.integers(1, 9), st.floats(1, 1e6))
@settings(deadline=None)
def test_alpha_one_leaves_agents_alone_however_far_they_are(
    seed: int, k: int, far: float
) -> None:
    theta = drawn(seed, k)
    theta[0] *= far
    before = theta.clone()
    done = share(theta, rule(before.mean(0), self_weight=1.0))
    assert torch.equal(theta, before)
    assert done.lost == ()


@given(GAUSSIAN, st.integers(1, 9), st.integers(0, 9))
@settings(deadline=None)
def test_half_of_the_agents_are_a_quorum(seed: int, k: int, teaching: int) -> None:
    theta = drawn(seed, k)
    before, sharing = theta.clone(), rule(torch.zeros(5, dtype=torch.float64))
    done = share(theta, sharing, eligible=torch.arange(k) < teaching)
    teachers = sum(done.teachers)
    assert done.shared is (teachers >= math.ceil(k / 2))
    if not done.shared:
        assert not sharing.consensus.any()
        keep = [i for i in range(k) if i not in done.lost]
        assert torch.equal(theta[keep], before[keep])


@given(GAUSSIAN, st.integers(2, 9), st.floats(0, 1), st.floats(-5, 5))
@settings(deadline=None)
def test_a_round_moves_with_the_origin(
    seed: int, k: int, alpha: float, by: float
) -> None:
    theta = drawn(seed, k)
    start = drawn(seed + 1, 1)[0]
    one, other = rule(start, self_weight=alpha), rule(start + by, self_weight=alpha)
    moved = theta + by
    share(theta, one)
    share(moved, other)
    torch.testing.assert_close(moved, theta + by)


@pytest.mark.parametrize("name", sorted(AGGREGATES))
def test_a_round_is_the_same_each_time(name: str) -> None:
    found = []
    for _ in range(2):
        theta, sharing = drawn(5, 8).float(), rule(torch.zeros(5), sharing=name)
        for _ in range(3):
            share(theta, sharing)
        found.append(theta)
    assert torch.equal(*found)
