"""Inequalities: ratios, errors and floors as sums of rates, and training by them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cooper
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_tables import HEADER, spell
from test_constraints import VALUES, counts, rates_of, table
from training_nets import NetsOnRows
from training_world import GENOME, brief, prepare, prepared_three_classes, promises

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import TRAINABLE
from safescale_ammt.data.counts import Counts, tally
from safescale_ammt.data.dataset import Dataset
from safescale_ammt.errors import ConstitutionError
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import HOLDS
from safescale_ammt.judging.group_rates import point_value
from safescale_ammt.judging.judge import judge
from safescale_ammt.judging.skill import balance, rate_hits
from safescale_ammt.model.network import predicted, probability
from safescale_ammt.model.tree_genome import TreeGenome
from safescale_ammt.training.bets import Bets
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.dual_update import DualUpdate, cell_hits
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.fair_head import fit
from safescale_ammt.training.genome_nets import GenomeNets
from safescale_ammt.training.multipliers import targets
from safescale_ammt.training.soundness import best_constant
from safescale_ammt.training.trainer import Trained, train
from safescale_ammt.training.training_log import discard
from safescale_ammt.trees.trainer import train_trees
from safescale_ammt.trees.tree_nets import TreeNets

SUMS = ("dp_ratio", "worst_group_error", "recall", "accuracy", "balanced_accuracy")


def law(metric: str, threshold: float, **rest: Any) -> Constitution:
    """One principle that is enforced; it names group g where the metric has one."""
    group = {"group": "g"} if metric in ("dp_ratio", "worst_group_error") else {}
    raw = promises({"metric": metric, "threshold": threshold, **group, **rest})
    raw["principles"][0]["train"] = {"enforce": True}
    return Constitution.from_dict(raw)


def enforced(
    metric: str, rows: EncodedRows, line: float = 0.6, classes: int = 2
) -> Constraints:
    outcomes = (1,) if classes == 2 else tuple(range(classes))
    return enforce(law(metric, line), VALUES, rows.groups, rows.y, outcomes)


def measured(metric: str, rows: EncodedRows, answer: torch.Tensor, n: int) -> float:
    """What the judge measures of the same answers."""
    evidence = Evidence(
        rows.y.numpy(),
        answer.numpy(),
        np.zeros(len(rows)),
        {"g": (VALUES["g"], rows.groups["g"].numpy())},
        classes=n,
        positive=1 if n == 2 else None,
    )
    if metric == "recall":
        hits, trials = rate_hits(metric, evidence)
        return hits / trials
    if metric == "balanced_accuracy":
        return float(balance(evidence).value)
    value = point_value(metric, evidence, "g")
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("metric", "classes"),
    # Recall speaks of one class; the ratio of three is tested beside.
    [(m, n) for m in SUMS for n in (2, 3) if n == 2 or m not in ("recall", "dp_ratio")],
)
def test_values_are_the_judge_s(metric: str, classes: int) -> None:
    rows = table(classes=classes, seed=3)
    generator = torch.Generator().manual_seed(4)
    answer = torch.randint(classes, (len(rows),), generator=generator)
    found = enforced(metric, rows, classes=classes)
    rates = rates_of(found, rows, answer)
    (value,) = found.values(rates).values()
    expected = measured(metric, rows, answer, classes)
    assert value == pytest.approx(expected, abs=1e-6)
    (beyond,) = found.violations(rates).values()
    sign = 1 if metric == "worst_group_error" else -1
    assert beyond == pytest.approx(sign * (value - 0.6), abs=1e-6)
    # Broken or not, the sums and the metric say the same.
    assert bool((found.differences(rates) > found.tau()).any()) == (beyond > 0)


def test_a_ratio_of_several_classes_is_the_worst_one() -> None:
    rows = table(classes=3, seed=3)
    answer = torch.randint(3, (len(rows),), generator=torch.Generator().manual_seed(4))
    found = enforced("dp_ratio", rows, classes=3)
    (value,) = found.values(rates_of(found, rows, answer)).values()
    assert value == pytest.approx(measured("dp_ratio", rows, answer, 3), abs=1e-6)


def test_a_ratio_of_nobody_is_not_defined_and_of_nobody_to_some_is_zero() -> None:
    rows = table()
    found = enforced("dp_ratio", rows)
    nobody = torch.zeros(len(rows), dtype=torch.int64)
    assert found.values(rates_of(found, rows, nobody)) == {}
    only_a = (rows.groups["g"] == 0).to(torch.int64)
    rates = rates_of(found, rows, only_a)
    assert found.values(rates) == {"dp-ratio": 0.0}
    assert found.violations(rates) == {"dp-ratio": pytest.approx(0.6)}


def test_an_error_is_mixed_of_classes_that_a_group_has() -> None:
    rows = table(classes=3)
    keep = (rows.groups["g"] != 0) | (rows.y != 2)
    rows = rows.where(keep)  # group a has no row of class 2
    found = enforced("worst_group_error", rows, classes=3)
    answer = torch.randint(3, (len(rows),), generator=torch.Generator().manual_seed(0))
    (value,) = found.values(rates_of(found, rows, answer)).values()
    expected = measured("worst_group_error", rows, answer, 3)
    assert value == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("metric", SUMS)
@given(seed=st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_cell_weights_are_the_slope_of_the_lagrangian(metric: str, seed: int) -> None:
    found = enforced(metric, table())
    generator = torch.Generator().manual_seed(seed)
    multipliers = torch.rand(len(found.pairs), generator=generator)
    rates = torch.rand(len(found.cells), generator=generator).requires_grad_()
    (slope,) = torch.autograd.grad(multipliers @ found.differences(rates), rates)
    torch.testing.assert_close(found.weights(multipliers), slope)


def test_the_error_of_a_sum_is_that_of_its_rate() -> None:
    rows = table()
    found = enforced("worst_group_error", rows)
    rates = rates_of(found, rows, torch.randint(2, (len(rows),)))
    sizes = found.membership(rows.groups, rows.y).sum(1).float()
    n = torch.bincount(rows.groups["g"]).float()
    p = (found.differences(rates) * n + 1) / (n + 2)
    expected = (p * (1 - p) / (n + 2)).sqrt()
    torch.testing.assert_close(found.standard_errors(rates, sizes), expected)
    ratio = enforced("dp_ratio", rows, 0.5)
    half = torch.full((3,), 0.5)
    # t^2 of the one rate's variance and all of the other's.
    errors = ratio.standard_errors(half, torch.full((3,), 98.0))
    torch.testing.assert_close(errors, torch.full((6,), (0.25 / 100 * 1.25) ** 0.5))


def test_a_margin_asks_for_no_more_than_can_be_had() -> None:
    rows = table()
    half = torch.full((3,), 0.5)
    few, many = torch.full((3,), 20.0), torch.full((3,), 1e12)
    # Equal rates are the best that both ratios of two groups can be.
    found = enforced("dp_ratio", rows, 0.8)
    aims = targets(found, law("dp_ratio", 0.8), counts(rows), half, few)
    base = [float((rows.y[rows.groups["g"] == g] == 1).float().mean()) for g in (0, 1)]
    assert -0.2 * max(base) <= aims[0] <= -0.2 * min(base)
    plenty = counts(rows, 1_000)
    aims = targets(found, law("dp_ratio", 0.8), plenty, half, many)
    assert (aims > -0.05).all()
    assert (aims < 0).all()
    # Half of what a line allows is aimed at, at best.
    for metric, line, most in [("worst_group_error", 0.3, 0.15), ("recall", 0.6, -0.8)]:
        found = enforced(metric, rows, line)
        sizes = torch.full((len(found.cells),), 20.0)
        aims = targets(found, law(metric, line), counts(rows), sizes / 40, sizes)
        assert aims[0].item() == pytest.approx(most)


def test_rows_of_all_groups_are_counted_by_their_share_of_the_sealed_ones() -> None:
    rows = table()
    found = enforced("recall", rows, 0.4)
    bare = Counts(("n", "y"), "y", {"sealed": tally(rows.y.repeat(50).numpy(), {}, 2)})
    rate, many = torch.tensor([0.5]), torch.tensor([1e12])
    (aim,) = targets(found, law("recall", 0.4), bare, rate, many).tolist()
    error = (0.25 / (50 * int(rows.y.sum()))) ** 0.5
    assert aim == pytest.approx(-0.4 - (1.6449 + 1.2816) * error, abs=1e-4)


def test_what_cannot_be_trained_for_is_refused_in_one_sentence() -> None:
    twin = {"metric": "accuracy", "reference": "unconstrained_twin", "delta": -0.1}
    for constraint, said in [
        ({"metric": "precision", "threshold": 0.5}, "answering nobody would keep it"),
        ({"metric": "auc", "threshold": 0.5}, "auc has no differentiable surrogate"),
        (twin, "a line that moves with unconstrained_twin"),
    ]:
        raw = promises(constraint)
        raw["principles"][0]["train"] = {"enforce": True}
        with pytest.raises(ConstitutionError, match=said) as caught:
            Constitution.from_dict(raw)
        assert str(caught.value).count("enforce") >= 2
    rows = table(classes=3)
    with pytest.raises(ConstitutionError, match="recall, which speaks of one class"):
        enforced("recall", rows, classes=3)


def test_a_floor_on_a_class_without_rows_is_left_out_and_one_class_has_an_error() -> (
    None
):
    rows = table()
    none = rows.where(rows.y == 0)
    found = enforced("recall", none)
    assert not found.pairs
    assert "no row that drives the multipliers is of its class" in found.left_out[0]
    found = enforced("accuracy", none)
    assert found.gains().isfinite().all()
    (value,) = found.values(rates_of(found, none, none.y)).values()
    assert value == pytest.approx(1)


def test_gaps_alone_are_trained_for_unless_the_file_says_so() -> None:
    for metric in TRAINABLE:
        group = metric in (*SUMS[:2], "dp_gap", "tpr_gap", "fpr_gap", "eo_difference")
        line = {"metric": metric, "threshold": 0.5, **({"group": "g"} if group else {})}
        (principle,) = Constitution.from_dict(promises(line)).principles
        assert principle.enforce == (metric not in SUMS)


# --- several terms in one training ---


def lopsided(rows: int, seed: int = 0) -> bytes:
    """Loans whose age tells all; of women fewer are granted, from a higher age on."""
    rng = np.random.default_rng(seed)
    cells = []
    for i in range(rows):
        woman, z = rng.random() < 0.3, rng.normal()
        granted = z + 0.3 * rng.normal() > (1.0 if woman else 0.0)
        texts = {"age": f"{45 + 12 * z:.2f}", "gain": "0", "city": "oslo"}
        texts |= {"gender": "f" if woman else "m", "origin": "north", "id": str(i)}
        texts["approved"] = "yes" if granted else "no"
        cells.append([texts[name] for name in HEADER])
    return spell(cells)


def nets_of(folder: Path, **changes: Any) -> GenomeNets:
    found = prepare(folder, lopsided(5000), **changes)
    return GenomeNets(EncodedDataset(Dataset.load(found)), GENOME)


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> GenomeNets:
    return nets_of(tmp_path_factory.mktemp("aware"), sensitive_in_model=True)


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> GenomeNets:
    return nets_of(tmp_path_factory.mktemp("blind"))


def trained(nets: GenomeNets, promised: Constitution) -> Trained:
    settings = brief(steps=400, trunk_steps=100, seed=2)
    return train(nets, settings, promised, log=discard)


def shown(
    nets: GenomeNets, found: Trained, theta: torch.Tensor
) -> tuple[Mapping[str, float], float]:
    """Returns values of the promises, and accuracy, on rows that no net has seen."""
    rows = nets.rows("validation", "monitor", "select")
    inside = found.constraints.membership(rows.groups, rows.y)
    hits = cell_hits(nets, found.constraints, theta, rows, inside)
    right = 0
    for block in rows.blocks():
        answer = predicted(nets.logits(theta[None], rows, block[None]))[0]
        right += int((answer == rows.y[block]).sum())
    return found.constraints.values(hits / inside.sum(1)), right / len(rows)


@pytest.mark.parametrize(
    ("metric", "line", "sees"),
    [
        ("dp_ratio", 0.8, "nets"),
        ("recall", 0.9, "nets"),
        # Who does not see the group has one cut for both: it moves to where the two
        # errors meet.
        ("worst_group_error", 0.25, "blind"),
    ],
)
def test_training_keeps_a_promise_that_its_twin_breaks_and_beats_a_constant(
    request: pytest.FixtureRequest, metric: str, line: float, sees: str
) -> None:
    nets = request.getfixturevalue(sees)
    over = {"group": "gender"} if metric != "recall" else {}
    promised = law(metric, line, **over)
    found = trained(nets, promised)
    keeps, accuracy = shown(nets, found, found.agents.mean(0))
    breaks, _ = shown(nets, found, found.twin[0])
    (name,) = keeps
    op = promised.principle(name).constraint.op
    assert (keeps[name] <= line) if op == "<=" else (keeps[name] >= line)
    assert not ((breaks[name] <= line) if op == "<=" else (breaks[name] >= line))
    y = nets.rows("validation").y
    constant = int(best_constant(y, 2, 1)[0] > 0)
    assert accuracy > float((y == constant).float().mean()) + 0.1


def test_several_promises_are_kept_at_once(blind: GenomeNets) -> None:
    raw = promises(
        {"metric": "worst_group_error", "group": "gender", "threshold": 0.28},
        {"metric": "recall", "threshold": 0.75},
        {"metric": "dp_gap", "group": "gender", "threshold": 0.3},
    )
    for principle in raw["principles"]:
        principle["train"] = {"enforce": True}
    found = trained(blind, Constitution.from_dict(raw))
    values, _ = shown(blind, found, found.agents.mean(0))
    assert values["worst-group-error"] <= 0.28
    assert values["recall"] >= 0.75
    assert values["dp-gap"] <= 0.3
    twin, _ = shown(blind, found, found.twin[0])
    assert twin["worst-group-error"] > 0.28


@pytest.mark.parametrize(("metric", "line"), [("dp_ratio", 0.8), ("recall", 0.8)])
def test_a_fair_head_corrects_sums_too(metric: str, line: float) -> None:
    rows = table(3000)
    # Scores that favour group c and are low for everybody.
    eta = torch.sigmoid(2 * rows.x[:, 0] + rows.x[:, 1] - 3.0).double()
    found = enforced(metric, rows, line)
    head = fit(found, rows, rows.x, eta, found.tau())
    assert head is not None
    corrected = torch.from_numpy(head.correct(rows.x.double().numpy(), eta.numpy()))

    def violation(score: torch.Tensor) -> float:
        rates = rates_of(found, rows, (score >= 0.5).to(torch.int64))
        return max(found.violations(rates).values())

    # Its steps are as many and as long as for gaps, which does not close all of it.
    assert violation(eta) > 0.1
    assert violation(corrected) < 0.6 * violation(eta)


def test_nobody_bets_on_what_is_no_difference_and_the_plan_says_so(
    nets: GenomeNets,
) -> None:
    raw = promises(
        {"metric": "dp_gap", "group": "gender", "threshold": 0.1},
        {"metric": "dp_ratio", "group": "gender", "threshold": 0.8},
        {"metric": "recall", "threshold": 0.5},
    )
    for principle in raw["principles"]:
        principle["train"] = {"enforce": True}
    events: list[Mapping[str, Any]] = []
    found = train(nets, brief(), Constitution.from_dict(raw), log=events.append)
    reasons = [e["reason"] for e in events if e["event"] == "left_out"]
    said = [r for r in reasons if "is not monitored" in r]
    assert [r.split()[0] for r in said] == ["dp-ratio", "recall"]
    looks = [e for e in events if e["event"] == "monitor"]
    assert looks
    assert all(set(e["gap"]) == {"dp-gap"} for e in looks)
    bets = Bets.on(found.constraints)
    sizes = np.full(len(found.constraints.cells), 400.0)
    for _ in range(3):
        # All rates are 0: recall and ratio are as broken as can be, the gap is kept.
        bets.add(np.zeros(len(sizes)), sizes)
    assert bets.wealth <= 1
    assert not bets.differences.any()


def test_judge_and_training_agree_that_a_floor_holds() -> None:
    rows = table(4000)
    evidence = Evidence(
        rows.y.numpy(),
        rows.y.numpy(),
        np.zeros(len(rows)),
        {"g": (VALUES["g"], rows.groups["g"].numpy())},
    )
    for metric in SUMS:
        promised = law(metric, 0.3 if metric == "worst_group_error" else 0.6)
        (principle,) = promised.principles
        finding = judge(principle, evidence, promised.groups, 0.05)
        assert finding.outcome == HOLDS
        found = enforced(metric, rows, principle.constraint.line)
        assert max(found.violations(rates_of(found, rows, rows.y)).values()) < 0


@pytest.mark.parametrize(
    ("positive", "pairs"),
    # Two groups, either way round: TPR and FPR, then rates, of each class that is
    # judged; an error each, and one floor, of all classes in any case.
    [("", [12, 6, 2, 1]), ("yes", [4, 2, 2, 1])],
)
def test_three_classes_are_held_to_several_promises_at_once(
    tmp_path: Path, positive: str, pairs: list[int]
) -> None:
    folder = prepared_three_classes(tmp_path, 1500, positive=positive)
    nets = GenomeNets(EncodedDataset(Dataset.load(folder)), GENOME)
    raw = promises(
        {"metric": "eo_difference", "group": "gender", "threshold": 0.3},
        {"metric": "dp_ratio", "group": "gender", "threshold": 0.5},
        {"metric": "worst_group_error", "group": "gender", "threshold": 0.6},
        {"metric": "balanced_accuracy", "threshold": 0.35},
    )
    for principle in raw["principles"]:
        principle["train"] = {"enforce": True}
    events: list[Mapping[str, Any]] = []
    law_ = Constitution.from_dict(raw)
    found = train(nets, brief(steps=120), law_, log=events.append)
    per = {p.id: 0 for p in law_.principles}
    for pair in found.constraints.pairs:
        per[pair.principle] += 1
    assert list(per.values()) == pairs
    (last,) = [e for e in events if e["event"] == "round"][-1:]
    assert set(last["multiplier"]) == set(per)
    moved = [v for by in last["multiplier"].values() for v in by.values()]
    assert all(v >= 0 for v in moved)
    values, _ = shown(nets, found, found.agents.mean(0))
    rows = nets.rows("validation", "monitor", "select")
    block = torch.arange(len(rows))
    answer = predicted(nets.logits(found.agents.mean(0)[None], rows, block[None]))[0]
    evidence = Evidence(
        rows.y.numpy(),
        answer.numpy(),
        np.zeros(len(rows)),
        {"gender": (nets.groups["gender"], rows.groups["gender"].numpy())},
        classes=3,
        positive=nets.outcomes[0] if positive else None,
    )
    # An error is mixed by the classes' shares among the rows that steer, not by these.
    for name, apart in (("eo-difference", 1e-5), ("worst-group-error", 0.02)):
        c = law_.principle(name).constraint
        expected = point_value(c.metric, evidence, "gender")
        assert values[name] == pytest.approx(expected, abs=apart)
    assert values["balanced-accuracy"] == pytest.approx(
        float(balance(evidence).value), abs=1e-5
    )


class Sums(cooper.ConstrainedMinimizationProblem):
    """Soft sums held below their bounds, as cooper has it."""

    def __init__(self, found: Constraints, logits: torch.Tensor) -> None:
        super().__init__()
        self.found, self.logits = found, logits
        self.bounded = cooper.Constraint(
            constraint_type=cooper.ConstraintType.INEQUALITY,
            formulation_type=cooper.formulations.Lagrangian,
            multiplier=cooper.multipliers.DenseMultiplier(
                num_constraints=len(found.pairs)
            ),
        )

    def compute_cmp_state(self) -> cooper.CMPState:
        """Measures the soft violations of all rows, and no loss."""
        inside = self.found.membership(ROWS.groups, ROWS.y)
        rates = torch.stack(
            [
                probability(self.logits[rows], cell.outcome).mean()
                for cell, rows in zip(self.found.cells, inside, strict=True)
            ]
        )
        violation = self.found.differences(rates) - self.found.tau()
        state = cooper.ConstraintState(violation=violation)
        return cooper.CMPState(observed_constraints={self.bounded: state})


ROWS = table(seed=9)


@pytest.mark.parametrize("metric", SUMS)
def test_the_pull_on_every_row_is_that_of_cooper_s_lagrangian(metric: str) -> None:
    found = enforced(metric, ROWS)
    generator = torch.Generator().manual_seed(1)
    multipliers = torch.rand(len(found.pairs), generator=generator)
    logits = torch.randn(len(ROWS), 1, generator=generator).requires_grad_()
    theirs = Sums(found, logits)
    theirs.bounded.multiplier.weight.data.copy_(multipliers)
    lagrangian = theirs.compute_cmp_state().compute_primal_lagrangian().lagrangian
    (expected,) = torch.autograd.grad(lagrangian, logits)
    # As the learner has it: each cell's rows, weighed by the cell's weight.
    inside = found.membership(ROWS.groups, ROWS.y)
    weights = found.weights(multipliers)
    ours = sum(
        weight * probability(logits[rows], cell.outcome).mean()
        for cell, rows, weight in zip(found.cells, inside, weights, strict=True)
    )
    (slope,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize(("metric", "line"), [("dp_ratio", 0.8), ("recall", 0.9)])
def test_trees_keep_them_too(nets: GenomeNets, metric: str, line: float) -> None:
    over = {"group": "gender"} if metric == "dp_ratio" else {}
    genome = TreeGenome(leaves=4, least_rows=10, rate=0.2, rounds=120)
    config: dict[str, Any] = {"learner": "trees", "num_agents": 3, "folds": 4}
    # Agents of several roles may err to either side, and pool to no gap at all.
    config["agent_specializations"] = ["generalist"]
    trees = TreeNets(nets.encoded, genome)
    section, promised = TrainingConfig.from_params(config), law(metric, line, **over)
    found = train_trees(trees, section, promised, log=discard)
    rows = trees.rows("validation", "monitor", "select")
    inside = found.constraints.membership(rows.groups, rows.y)
    seen = []
    for shares in (found.agents.mean(0), found.twin[0]):
        hits = cell_hits(trees, found.constraints, shares, rows, inside)
        seen += found.constraints.values(hits / inside.sum(1)).values()
    assert seen[0] >= line > seen[1]


def test_an_alarm_moves_a_gap_both_ways_and_a_floor_one_way() -> None:
    rows = table(900)
    raw = promises(
        {"metric": "dp_ratio", "group": "g", "threshold": 0.8},
        {"metric": "balanced_accuracy", "threshold": 0.6},
        {"metric": "recall", "threshold": 0.5},
    )
    for principle in raw["principles"]:
        principle["train"] = {"enforce": True}
    found = enforce(
        Constitution.from_dict(raw), VALUES, rows.groups, rows.y, outcomes=(1,)
    )
    names = [p.name for p in found.pairs]
    opposites = found.opposites
    assert opposites[names.index("rate: a / b")] == names.index("rate: b / a")
    # Two terms are no comparison of two groups yet.
    assert opposites[-2:] == [None, None]
    fold = torch.arange(len(rows))
    dual = DualUpdate(NetsOnRows(GENOME, rows), found, rows, [fold], brief())
    broken = torch.zeros(len(names), dtype=torch.bool)
    broken[[names.index("rate: a / b"), len(names) - 1]] = True
    dual.correct(torch.full((len(names),), 0.25), broken)
    unseen = dict(zip(names, dual.unseen.tolist(), strict=True))
    assert unseen.pop("rate: a / b") == 0.25
    assert unseen.pop("rate: b / a") == -0.25
    assert unseen.pop("recall") == 0.25
    assert set(unseen.values()) == {0.0}
