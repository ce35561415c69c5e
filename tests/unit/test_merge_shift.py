"""Merge shift: the multipliers see the merged model, and not only its agents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_nets import NetsOnRows
from training_world import DP, GENOME, TPR, USEFUL, brief, constitution, prepared

from safescale_ammt.config.roles import ROLES, Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.network import predicted, unflatten
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.dual_update import (
    DualUpdate,
    cell_hits,
    measured,
    merge_shift_of,
)
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.merge_shift import MergeShift, differ
from safescale_ammt.training.plan import Plan, make_plan
from safescale_ammt.trees.trainer import Crowd, TreeDual
from safescale_ammt.trees.tree_nets import TreeNets

VALUES = {"g": ("a", "b")}
LINEAR = Genome(widths=(), dropout=0.0)
PARITY = {"metric": "dp_gap", "group": "g", "threshold": 0.05}


def table(n: int, seed: int = 0) -> EncodedRows:
    """Rows of two groups, whose last input is -1 or 1 by the group."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(2, (n,), generator=generator)
    x = torch.randn(n, 4, generator=generator)
    x[:, 3] = 2.0 * group - 1
    label = (torch.rand(n, generator=generator) < 0.5).long()
    return EncodedRows(x, label, {"g": group})


def law(rows: EncodedRows, metric: str = "dp_gap") -> Constraints:
    rules = constitution({**PARITY, "metric": metric}, min_n=1, min_pos=1)
    return enforce(rules, VALUES, rows.groups, rows.y, (1,))


def shift_on(rows: EncodedRows, metric: str = "dp_gap") -> MergeShift:
    found = law(rows, metric)
    return MergeShift(found, rows, found.membership(rows.groups, rows.y))


def answers(n: int, agents: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = torch.randint(2, (agents + 1, n), generator=generator)
    return both[:-1], both[-1]


@pytest.mark.parametrize("metric", ["dp_gap", "tpr_gap", "dp_ratio", "recall"])
def test_the_shift_is_that_of_the_sums_and_its_error_that_of_paired_rows(
    metric: str,
) -> None:
    rows = table(1200)
    if metric in ("dp_ratio", "recall"):
        c = {"metric": metric, "threshold": 0.8, "op": ">="}
        c |= {"group": "g"} if metric == "dp_ratio" else {}
        principle = {"id": "p", "constraint": c, "train": {"enforce": True}}
        rules = Constitution.from_dict({"schema": 1, "principles": [principle]})
        found = enforce(rules, VALUES, rows.groups, rows.y, (1,))
    else:
        found = law(rows, metric)
    inside = found.membership(rows.groups, rows.y)
    agents, merged = answers(1200, 3, 1)
    shifts, errors = MergeShift(found, rows, inside).measured(agents, merged)

    own = (merged.double() - agents.double().mean(0)).numpy()
    means = [own[cell].mean() for cell in inside.numpy()]
    variances = [own[cell].var(ddof=1) / cell.sum() for cell in inside.numpy()]
    for j, pair in enumerate(found.pairs):
        terms = [(t.factor, t.cells[0]) for t in pair.terms]
        expected = sum(f * means[c] for f, c in terms)
        error = np.sqrt(sum(f * f * variances[c] for f, c in terms))
        assert float(shifts[j]) == pytest.approx(expected, abs=1e-6)
        assert float(errors[j]) == pytest.approx(error, rel=1e-4)


@given(st.integers(0, 10_000), st.integers(2, 5))
@settings(deadline=None, max_examples=30)
def test_agents_that_agree_with_their_mean_and_the_order_of_rows_shift_nothing(
    seed: int, k: int
) -> None:
    rows = table(120, seed)
    agents, merged = answers(120, k, seed)
    shift = shift_on(rows)
    assert shift.kept(merged.expand(k, -1), merged).tolist() == [0.0, 0.0]
    order = torch.randperm(120)
    turned = shift_on(rows.where(order))
    found = turned.kept(agents[:, order], merged[order])
    torch.testing.assert_close(found, shift.kept(agents, merged))


def test_what_may_be_chance_is_left_out_and_what_is_clear_is_kept() -> None:
    rows, kept = table(600), 0
    shift = shift_on(rows)
    for seed in range(200):
        kept += bool(shift.kept(*answers(600, 4, seed)).any())
    assert kept <= 4  # about one in 400 at three standard errors
    # The mean favours group b, of whom no agent does.
    merged = rows.groups["g"]
    clear = shift.kept(torch.zeros(4, 600, dtype=torch.long), merged)
    assert clear.tolist() == pytest.approx([-1, 1])
    # In between it grows from nothing to all, at four standard errors.
    merged, shares = merged.clone(), []
    agents = torch.zeros(4, 600, dtype=torch.long)
    for more in range(0, 60, 3):
        merged[:] = 0
        merged[:more] = 1 - rows.groups["g"][:more]
        shifts, errors = shift.measured(agents, merged)
        size, part = float((shifts / errors)[0].abs()), shift.kept(agents, merged)
        shares.append(float(part[0] / shifts[0]) if more else 0.0)
        expected = min(1.0, max(0.0, 4 * (1 - 3 / size))) if more else 0.0
        assert shares[-1] == pytest.approx(expected, abs=1e-4)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert any(0 < share < 1 for share in shares)


def test_a_cell_without_rows_shifts_nothing() -> None:
    rows = table(200)
    found = law(rows)
    alone = rows.where(rows.groups["g"] == 0)
    inside = found.membership(alone.groups, alone.y)
    agents, merged = answers(len(alone), 2, 3)
    assert MergeShift(found, alone, inside).kept(agents, merged).tolist() == [0, 0]


# --- the fault that it mends ---


def opposite_agents(scale: float) -> torch.Tensor:
    """Two linear nets: one favours b a little, one a, by logits `scale` as large."""
    theta = torch.zeros(2, sum(np.prod(s) for s in shapes(LINEAR, 4, 1).values()))
    weight = unflatten(theta, shapes(LINEAR, 4, 1))["out.weight"]
    weight[0].view(-1)[:] = torch.tensor([1.0, 0, 0, 0.3])
    weight[1].view(-1)[:] = scale * torch.tensor([1.0, 0, 0, -0.3])
    return theta


def dual_of(rows: EncodedRows, shown: EncodedRows | None) -> DualUpdate:
    found, fold = law(rows), torch.arange(len(rows)) % 2
    shift = None
    if shown is not None:
        inside = found.membership(shown.groups, shown.y)
        shift = MergeShift(found, shown, inside)
    return DualUpdate(
        NetsOnRows(LINEAR, rows),
        found,
        rows,
        [(fold == i).nonzero()[:, 0] for i in range(2)],
        brief(),
        merge_shift=shift,
    )


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_agents_that_err_in_opposite_directions_do_not_hide_the_mean_s_gap(
    scale: float,
) -> None:
    rows, shown, fresh = (table(n, seed) for seed, n in enumerate((8000, 4000, 60_000)))
    theta, finite = opposite_agents(scale), torch.ones(2, dtype=torch.bool)
    pooled, both = dual_of(rows, None), dual_of(rows, shown)
    for _ in range(5):
        blind = pooled.update(theta, finite)["violation"]["dp-gap"] + 0.05
        seen = both.update(theta, finite)["violation"]["dp-gap"] + 0.05
    inside = law(fresh).membership(fresh.groups, fresh.y)
    nets = NetsOnRows(LINEAR, fresh)
    hits = cell_hits(nets, law(fresh), theta.mean(0), fresh, inside)
    truth = law(fresh).values(hits / inside.sum(1))["dp-gap"]
    assert blind < 0.03  # each agent's own is .24
    assert seen == pytest.approx(truth, abs=0.04)
    if scale == 20:
        assert truth > 0.15
        # The multipliers of the pair that the mean breaks rise, and no other's.
        lambdas = both.controller.multipliers
        assert float(lambdas[0]) > 3 * float(pooled.controller.multipliers[0])
        assert float(lambdas[1]) == 0


def test_it_is_measured_at_every_update_and_logged_while_there_is_one() -> None:
    rows, shown = table(4000), table(2000, 1)
    theta, finite = opposite_agents(20.0), torch.ones(2, dtype=torch.bool)
    dual = dual_of(rows, shown)
    for weights, there in ((theta, True), (theta * 0, False), (theta, True)):
        report = dual.update(weights, finite)
        assert ("shift" in report) == there
        assert bool(dual.shift.any()) == there  # none where all answer the same


def test_a_lost_agent_is_left_out_of_the_mean() -> None:
    rows, shown = table(4000), table(2000, 1)
    theta = opposite_agents(20.0)
    theta[1] = torch.nan
    dual = dual_of(rows, shown)
    dual.update(theta, torch.tensor([True, False]))
    assert dual.shift.tolist() == [0, 0]


def test_a_state_holds_the_shift_which_a_correction_counts_as_known() -> None:
    rows, shown = table(4000), table(2000, 1)
    theta, finite = opposite_agents(20.0), torch.ones(2, dtype=torch.bool)
    first, second = dual_of(rows, shown), dual_of(rows, shown)
    first.update(theta, finite)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.shift, second.shift)
    broken, fresh = torch.tensor([True, False]), first.pooled + first.shift + 0.1
    second.correct(fresh, broken)
    assert second.unseen.tolist() == pytest.approx([0.1, -0.1])


# --- who is measured ---


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> EncodedDataset:
    folder = tmp_path_factory.mktemp("loans")
    data = prepared(folder, rows=2400, sensitive_in_model=True)
    return EncodedDataset(Dataset.load(data))


def plan_of(encoded: EncodedDataset, *names: str, **changes: int) -> Plan:
    config = brief(agent_specializations=[*names], num_agents=4, **changes)
    return make_plan(GenomeNets(encoded, GENOME), config, constitution(DP, TPR))


def test_agents_of_one_role_under_any_names_are_not_measured(
    encoded: EncodedDataset,
) -> None:
    assert merge_shift_of(plan_of(encoded, "safety")) is None
    # A role for other data acts as the generalist.
    assert merge_shift_of(plan_of(encoded, "generalist", "language")) is None
    found = merge_shift_of(plan_of(encoded, "generalist", "safety"))
    assert found is not None
    held = encoded.joined(("validation",), GENOME.encoding)
    assert len(found.rows) == len(held)
    for key, value in vars(Role("x", "")).items():
        if isinstance(value, float):
            assert differ([Role("x", ""), Role("x", "", **{key: value + 0.5})])
    assert not differ([ROLES["generalist"]] * 3)


def test_without_a_promise_nothing_is_measured(encoded: EncodedDataset) -> None:
    config = brief(agent_specializations=["generalist", "safety"])
    plan = make_plan(GenomeNets(encoded, GENOME), config, constitution(USEFUL))
    assert merge_shift_of(plan) is None


def test_of_many_rows_small_cells_keep_theirs() -> None:
    inside = torch.zeros(2, 1000, dtype=torch.bool)
    inside[0, :900], inside[1, ::100] = True, True
    [(part, rows)] = measured(inside, [torch.arange(1000)], 1, 400)
    assert part.sum(1).tolist() == [200, 10]
    assert len(rows) == int(part.any(0).sum())


def test_boosters_answer_as_the_mixture_that_is_released(
    encoded: EncodedDataset,
) -> None:
    nets = TreeNets(encoded, TreeGenome(leaves=4, least_rows=10, rate=0.2, rounds=9))
    section = {"learner": "trees", "num_agents": 4, "folds": 4}
    config = TrainingConfig(**section, agent_specializations=tuple(ROLES))
    plan = make_plan(nets, config, constitution(DP))
    crowd = Crowd(nets, plan)
    dual, shares = TreeDual(plan, crowd), torch.eye(5, dtype=torch.float64)
    assert dual.merge_shift is not None
    rows = dual.merge_shift.rows
    for _ in range(3):
        for _ in range(3):
            crowd.step(torch.tensor([1.0, -1.0]))
        alone, merged = dual.answers(shares, torch.ones(4, dtype=torch.bool), rows)
    mean = shares[:4].mean(0, keepdim=True)
    out = nets.logits(
        torch.cat([shares[:4], mean]), rows, torch.arange(len(rows))[None]
    )
    assert torch.equal(torch.cat([alone, merged[None]]), predicted(out))
