"""Poisoned agents: what they hand over moves nobody, and none of them is merged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_sync import rule, share
from torch import Tensor
from training_world import GENOME, TPR, USEFUL, brief, constitution, prepared
from training_world import prepared_three_classes as three

from safescale_ammt.data.dataset import Dataset
from safescale_ammt.training.encoded import EncodedDataset
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge import merge
from safescale_ammt.training.soundness import excess_loss, sound_ones
from safescale_ammt.training.sync import AGGREGATES, FAR
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard

WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "reversed, three times as long": lambda update: -3 * update,
    "reversed, ten times as long": lambda update: -10 * update,
    "a hundred times as long": lambda update: 100 * update,
    "too long for its square": lambda update: 1e30 * update,
    "the same value everywhere": lambda update: torch.full_like(update, 50.0),
    "not a number": lambda update: update * torch.nan,
}


def honest(k: int, seed: int = 0) -> Tensor:
    """Updates of agents that go one way, each with something of its own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(200, generator=generator) + 0.5 * torch.randn(
        k, 200, generator=generator
    )


@pytest.mark.parametrize("poisoned", [1, 2, 3])
@pytest.mark.parametrize("sharing", sorted(AGGREGATES))
@pytest.mark.parametrize("way", WAYS)
def test_a_minority_of_eight_moves_no_consensus(
    way: str, sharing: str, poisoned: int
) -> None:
    theta, alone = honest(8), honest(8)[poisoned:]
    theta[:poisoned] = WAYS[way](theta[:poisoned])
    sound = rule(torch.zeros(200), sharing=sharing)
    guarded = rule(torch.zeros(200), sharing=sharing)
    share(alone, sound)
    done = share(theta, guarded)
    assert set(range(poisoned)) == {*done.lost, *done.outlying}
    torch.testing.assert_close(guarded.consensus, sound.consensus)
    torch.testing.assert_close(theta[poisoned:], alone)


def test_an_agent_that_is_far_away_comes_back_to_the_others() -> None:
    theta = honest(5)
    theta[2] *= 1 + FAR * 2
    sharing = rule(torch.zeros(200))
    done = share(theta, sharing)
    assert (done.lost, done.outlying) == ((2,), ())
    assert torch.equal(theta[2], sharing.consensus)


def test_one_ahead_of_the_others_is_neither_far_nor_outlying() -> None:
    theta = honest(5)
    theta[2] *= 4
    assert all(share(theta, rule(torch.zeros(200))).teachers)


def test_where_most_stand_still_a_step_is_not_far() -> None:
    theta = torch.zeros(5, 3)
    theta[0] = 1.0
    assert share(theta, rule(torch.zeros(3))).lost == ()


# --- the merge ---


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = tmp_path_factory.mktemp("loans")
    return EncodedDataset(Dataset.load(prepared(folder, 2400, sensitive_in_model=True)))


@pytest.fixture(scope="module")
def trained(encoded: EncodedDataset) -> Trained:
    config = brief(num_agents=5, steps=200, trunk_steps=50)
    return train(GenomeNets(encoded, GENOME), config, constitution(TPR), log=discard)


def spoilt(trained: Trained, *agents: int) -> Trained:
    """Agents whose every logit is the reverse of what they learnt, and then some."""
    theta = trained.agents.clone()
    theta[list(agents)] = -6 * theta[list(agents)]
    return replace(trained, agents=theta)


def test_agents_that_learnt_are_all_merged(
    trained: Trained,
) -> None:
    found, told = sound_ones(trained)
    assert found.finite.all()
    assert told == ()


def test_an_agent_worse_than_a_constant_is_in_no_form_and_named_once(
    trained: Trained,
) -> None:
    found = merge(spoilt(trained, 1), constitution(TPR), form="ensemble")
    assert found.model.members == 4
    told = [e["reason"] for e in found.events() if e["event"] == "left_out"]
    assert len(told) == 1
    assert told[0].startswith("Agent 1 of 5 is left out of the merge: its loss")
    without = replace(trained, finite=torch.tensor([True, False, True, True, True]))
    expected = merge(without, constitution(TPR), form="ensemble")
    for name, weight in expected.model.weights.items():
        assert (found.model.weights[name] == weight).all()


def test_weights_whose_answers_overflow_are_left_out(
    trained: Trained,
) -> None:
    theta = trained.agents.clone()
    theta[3] *= 1e30
    found, told = sound_ones(replace(trained, agents=theta))
    assert found.finite.tolist() == [True, True, True, False, True]
    assert "is not finite" in told[0]


def test_where_over_half_are_odd_nobody_knows_who_is(
    trained: Trained,
) -> None:
    most = spoilt(trained, 0, 1, 2)
    found, told = sound_ones(most)
    assert found.finite.all()
    assert told == ()


def test_three_classes_have_a_best_constant_too(tmp_path: Path) -> None:
    encoded = EncodedDataset(Dataset.load(three(tmp_path, sensitive_in_model=True)))
    config = brief(num_agents=3, steps=150)
    trained = train(
        GenomeNets(encoded, GENOME), config, constitution(USEFUL), log=discard
    )
    excess, error = excess_loss(trained)
    assert (excess < 5 * error).all()
    assert sound_ones(spoilt(trained, 2))[0].finite.tolist() == [1, 1, 0]
