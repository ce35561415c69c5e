"""Roles, sampling and folds: every role has an effect, every row has its turn."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safescale_ammt.config.roles import ROLES
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.config.unapplied import unapplied_to_tables
from safescale_ammt.errors import ConfigError
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.network import initial
from safescale_ammt.training.constraints import Cell
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.folds import stratified_folds
from safescale_ammt.training.genome_nets import GenomeLearner
from safescale_ammt.training.roles import assign, traits
from safescale_ammt.training.sampling import RowOrder, row_weights

GENOME = Genome(widths=(6,), dropout=0.0)
CELLS = (Cell("g", 0, "a", 1, None), Cell("g", 1, "b", 1, None))


def rows(n: int = 200) -> EncodedRows:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=generator)
    label = (torch.arange(n) % 5 == 0).to(torch.int64)
    return EncodedRows(x, label, {"g": (torch.arange(n) % 2)})


def trained(role: str, steps: int = 3) -> torch.Tensor:
    """Takes a few steps in a role, with a multiplier on the groups' rates."""
    data = rows()
    learner = GenomeLearner(
        GENOME,
        data,
        initial(GENOME, 4, 1, [1]),
        n_out=1,
        ema=0.9,
        stability=1e3,
        seed=2,
        cells=CELLS,
    )
    learner.fork([ROLES[role]])
    strata = data.y * 2 + data.groups["g"]
    order = RowOrder(torch.arange(200), row_weights(ROLES[role], strata), seed=3)
    for _ in range(steps):
        batch = order.take(32)[None]
        learner.step(batch, torch.arange(32)[None], torch.tensor([0.5, -0.5]), 0.01)
    return learner.theta


@pytest.mark.parametrize("role", [r for r in ROLES if r != "generalist"])
def test_every_role_changes_what_is_learnt(role: str) -> None:
    assert not torch.equal(trained(role), trained("generalist"))


@pytest.mark.parametrize("role", ROLES)
def test_a_role_learns_the_same_twice(role: str) -> None:
    assert torch.equal(trained(role), trained(role))


def test_a_role_says_what_it_favours() -> None:
    for role in ROLES.values():
        assert role.favours


def test_roles_are_dealt_out_in_turn() -> None:
    dealt = assign((ROLES["generalist"], ROLES["safety"]), 5)
    names = [role.name for role in dealt]
    assert names == ["generalist", "safety", "generalist", "safety", "generalist"]


@pytest.mark.parametrize("name", ["vision", "language"])
def test_a_role_of_another_modality_is_said_to_act_as_generalist(name: str) -> None:
    config = TrainingConfig(agent_specializations=(name, "safety"))
    (reason,) = unapplied_to_tables(config)
    assert f"{name!r}, a role for" in reason
    assert "the dataset is a table" in reason


def test_an_unknown_role_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="expected one of calibrated, efficiency"):
        TrainingConfig.from_params({"agent_specializations": ["generalist", "poet"]})


def test_the_traits_are_columns_in_the_agents_order() -> None:
    found = traits([ROLES["safety"], ROLES["calibrated"]])
    assert found.constraint_weight.tolist() == [2, 1]
    assert found.brier.tolist() == [0, 0.5]


# --- rows ---


@given(st.integers(1, 60), st.lists(st.integers(1, 25), min_size=1, max_size=8))
@settings(deadline=None)
def test_every_pass_shows_every_row_once(n: int, takes: list[int]) -> None:
    order = RowOrder(torch.arange(n) * 10, None, seed=1)
    drawn = torch.cat([order.take(t) for t in takes])
    for start in range(0, len(drawn) - n + 1, n):
        assert sorted(drawn[start : start + n].tolist()) == list(range(0, 10 * n, 10))


def test_a_minority_s_rows_are_drawn_more_often() -> None:
    strata = torch.tensor([0] * 9000 + [1] * 1000)
    weights = row_weights(ROLES["minority"], strata)
    assert weights is not None
    order = RowOrder(torch.arange(10_000), weights, seed=1)
    share = (strata[order.take(40_000)] == 1).double().mean().item()
    expected = 1000**0.75 / (1000**0.75 + 9000**0.75)
    assert share == pytest.approx(expected, abs=0.01)
    assert row_weights(ROLES["generalist"], strata) is None


@given(
    st.lists(st.integers(0, 4), min_size=8, max_size=120),
    st.integers(2, 8),
    st.integers(0, 100),
)
@settings(deadline=None)
def test_folds_spread_every_stratum_evenly(
    strata: list[int], folds: int, seed: int
) -> None:
    codes = torch.tensor(strata)
    found = stratified_folds(codes, folds, seed)
    for part in (found, *(found[codes == s] for s in set(strata))):
        sizes = torch.bincount(part, minlength=folds)
        assert sizes.max() - sizes.min() <= 1
    assert torch.equal(found, stratified_folds(codes, folds, seed))
