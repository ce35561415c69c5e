"""Sync: the sharing rule, its invariants and its named corners."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.training.sync import AGGREGATES, Round, Sharing

agents = arrays(
    "float64",
    st.tuples(st.integers(1, 9), st.integers(1, 6)),
    elements=st.floats(-10, 10),
).map(torch.from_numpy)


def share(theta: Tensor, sharing: Sharing, **changes: Tensor) -> Round:
    everyone = torch.ones(len(theta), dtype=torch.bool)
    everybody = {
        "usable": everyone,
        "eligible": everyone,
        "fitness": lambda: torch.zeros(len(theta), dtype=theta.dtype),
    }
    return sharing.share(theta, **{**everybody, **changes})


def rule(start: Tensor, **changes: Any) -> Sharing:
    return Sharing(start, TrainingConfig(**changes))


@given(agents, st.floats(0, 1))
@settings(deadline=None)
def test_a_sync_round_with_the_mean_preserves_the_mean(
    theta: Tensor, alpha: float
) -> None:
    before = theta.mean(0)
    # A start at the agents' own mean leaves no update against the others.
    done = share(theta, rule(before, self_weight=alpha))
    if not done.outlying and not done.lost:
        torch.testing.assert_close(theta.mean(0), before, atol=1e-9, rtol=0)


@given(agents, st.sampled_from(sorted(AGGREGATES)))
@settings(deadline=None)
def test_an_aggregate_lies_between_the_agents_and_ignores_their_order(
    theta: Tensor, name: str
) -> None:
    fitness = torch.zeros(len(theta), dtype=theta.dtype)
    found = AGGREGATES[name](theta, fitness)
    assert (found >= theta.min(0).values - 1e-9).all()
    assert (found <= theta.max(0).values + 1e-9).all()
    torch.testing.assert_close(AGGREGATES[name](theta.flip(0), fitness), found)


@given(agents, st.sampled_from(sorted(AGGREGATES)))
@settings(deadline=None)
def test_agents_that_agree_stay_where_they_are(theta: Tensor, name: str) -> None:
    same = theta[:1].expand_as(theta).clone()
    share(same, rule(theta[0], sharing=name))
    torch.testing.assert_close(same, theta[:1].expand_as(theta))


def test_known_aggregates() -> None:
    theta = torch.tensor([[0.0], [1.0], [2.0], [3.0], [100.0]])
    flat = torch.zeros(5)
    assert AGGREGATES["median"](theta, flat).item() == 2
    assert AGGREGATES["median"](theta[:4], flat[:4]).item() == 1.5
    assert AGGREGATES["trimmed_mean"](theta, flat).item() == 2
    best = torch.tensor([0.0, 0.0, 0.0, 0.9, 0.0])
    assert AGGREGATES["fitness"](theta, best).item() == pytest.approx(3)


def test_alpha_one_is_independent_agents() -> None:
    theta = torch.randn(4, 3)
    before = theta.clone()
    share(theta, rule(torch.zeros(3), self_weight=1.0))
    assert torch.equal(theta, before)


def test_alpha_zero_with_the_mean_is_local_sgd() -> None:
    # A far one of others would be left out of the mean.
    theta = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    mean = theta.mean(0)
    sharing = rule(mean, self_weight=0.0)
    share(theta, sharing)
    torch.testing.assert_close(theta, mean.expand(4, 3))
    torch.testing.assert_close(sharing.consensus, mean)


def test_diloco_is_torch_s_nesterov_on_the_outer_gradient() -> None:
    sharing = rule(
        torch.zeros(3), self_weight=0.0, outer_learning_rate=0.7, outer_momentum=0.9
    )
    reference = torch.nn.Parameter(torch.zeros(3))
    outer = torch.optim.SGD([reference], lr=0.7, momentum=0.9, nesterov=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        theta = sharing.consensus + torch.rand(4, 3, generator=generator)
        reference.grad = reference.data - theta.mean(0)
        outer.step()
        share(theta, sharing)
        torch.testing.assert_close(sharing.consensus, reference.data)
        torch.testing.assert_close(theta, reference.data.expand(4, 3))


def test_papa_pulls_every_agent_a_little_towards_the_mean() -> None:
    theta = torch.tensor([[0.0], [1.0], [2.0]])
    share(theta, rule(torch.tensor([1.0]), self_weight=0.99))
    torch.testing.assert_close(theta, torch.tensor([[0.01], [1.0], [1.99]]))


# --- who is left out ---


@pytest.mark.parametrize("poison", [torch.nan, torch.inf])
def test_a_lost_agent_teaches_nobody_and_copies_the_consensus(poison: float) -> None:
    theta = torch.tensor([[1.0], [3.0], [poison], [2.0]])
    sharing = rule(torch.tensor([0.0]), self_weight=0.5)
    done = share(theta, sharing)
    assert done.lost == (2,)
    assert done.eventful
    assert theta.isfinite().all()
    assert theta[2].item() == sharing.consensus.item() == 2


def test_an_agent_that_took_no_step_is_lost_too() -> None:
    theta = torch.tensor([[1.0], [3.0], [50.0]])
    usable = torch.tensor([True, True, False])
    done = share(theta, rule(torch.zeros(1)), usable=usable)
    assert done.lost == (2,)
    assert theta[2].item() == 2


def test_an_update_far_out_and_against_the_others_is_excluded() -> None:
    theta = torch.tensor([[1.0, 0.1], [1.1, 0.0], [0.9, 0.0], [1.0, 0.0], [-9.0, 0.0]])
    theta = torch.cat([theta, torch.tensor([[3.0, 0.0]] * 4)])
    sharing = rule(torch.zeros(2), self_weight=0.0)
    done = share(theta, sharing)
    assert done.outlying == (4,)
    assert sharing.consensus[0].item() == pytest.approx(2.0)


def test_a_long_update_in_the_common_direction_counts() -> None:
    theta = torch.tensor([[1.0], [1.1], [0.9], [9.0]])
    assert share(theta, rule(torch.zeros(1))).outlying == ()


@pytest.mark.parametrize(("teaching", "shared"), [(2, True), (1, False)])
def test_a_round_needs_a_quorum_of_half_the_agents(teaching: int, shared: bool) -> None:
    theta = torch.arange(4.0)[:, None]
    before = theta.clone()
    sharing = rule(torch.tensor([9.0]))
    done = share(theta, sharing, eligible=torch.arange(4) < teaching)
    assert done.shared is shared
    assert torch.equal(theta, before) is not shared
    assert (sharing.consensus.item() == 9.0) is not shared


def test_an_agent_that_may_not_teach_still_learns() -> None:
    theta = torch.tensor([[0.0], [2.0], [9.0]])
    eligible = torch.tensor([True, True, False])
    share(theta, rule(torch.tensor([1.0]), self_weight=0.5), eligible=eligible)
    torch.testing.assert_close(theta, torch.tensor([[0.5], [1.5], [5.0]]))


def test_a_round_is_json() -> None:
    theta = torch.zeros(2, 1)
    done = share(theta, rule(torch.zeros(1)))
    assert done.to_dict() == {
        "shared": True,
        "teachers": [True, True],
        "lost": [],
        "outlying": [],
    }
    assert not done.eventful
