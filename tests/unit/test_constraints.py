"""Constraints: cells, pairs, multipliers and targets against known answers."""

from __future__ import annotations

import fairlearn.metrics as reference
import numpy as np
import pytest
import torch
from cooper.optim import nuPI, nuPIInitType
from hypothesis import given, settings
from hypothesis import strategies as st
from training_nets import NetsOnRows
from training_world import GENOME, brief, constitution

from safescale_ammt.data.counts import Counts, tally
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.group_rates import point_value
from safescale_ammt.model.fair_head import FairHead
from safescale_ammt.model.genome import shapes
from safescale_ammt.model.network import initial, unflatten
from safescale_ammt.training.constraints import (
    Constraints,
    hard_rates,
    z_value,
)
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.fair_head import fit
from safescale_ammt.training.learner import soft_rates
from safescale_ammt.training.multipliers import NuPI, targets

GAPS = ("dp_gap", "tpr_gap", "fpr_gap", "eo_difference")
VALUES = {"g": ("a", "b", "c")}


def table(n: int = 600, seed: int = 0, classes: int = 2) -> EncodedRows:
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(3, (n,), generator=generator)
    label = torch.randint(classes, (n,), generator=generator)
    x = torch.randn(n, 4, generator=generator)
    x[:, 0] += 1.5 * label
    x[:, 1] += group
    return EncodedRows(x, label, {"g": group})


def enforced(
    metric: str, rows: EncodedRows, outcomes: tuple[int, ...] = (1,), **groups: int
) -> Constraints:
    promises = constitution(
        {"metric": metric, "group": "g", "threshold": 0.1}, **groups
    )
    return enforce(promises, VALUES, rows.groups, rows.y, outcomes)


def rates_of(
    found: Constraints, rows: EncodedRows, prediction: torch.Tensor
) -> torch.Tensor:
    inside = found.membership(rows.groups, rows.y)
    outcomes = torch.tensor([c.outcome for c in found.cells])
    return hard_rates(prediction[None], inside, outcomes)[0] / inside.sum(1)


# --- cells and pairs ---


@pytest.mark.parametrize("metric", GAPS)
@pytest.mark.parametrize("classes", [2, 3])
def test_the_largest_difference_of_the_pairs_is_the_judge_s_gap(
    metric: str, classes: int
) -> None:
    rows = table(classes=classes)
    prediction = torch.randint(classes, (len(rows),))
    found = enforced(metric, rows, (1,) if classes == 2 else (0, 1, 2))
    evidence = Evidence(
        rows.y.numpy(),
        prediction.numpy(),
        np.zeros(len(rows)),
        {"g": (VALUES["g"], rows.groups["g"].numpy())},
        classes=classes,
        positive=1 if classes == 2 else None,
    )
    (gap,) = found.values(rates_of(found, rows, prediction)).values()
    assert gap == pytest.approx(point_value(metric, evidence, "g"), abs=1e-6)


def test_every_ordered_pair_of_groups_is_one_constraint() -> None:
    rows = table()
    assert len(enforced("tpr_gap", rows).pairs) == 6
    assert len(enforced("eo_difference", rows).pairs) == 12
    names = {pair.name for pair in enforced("dp_gap", rows).pairs}
    assert {"rate: a - b", "rate: b - a"} <= names
    names = {p.name for p in enforced("fpr_gap", table(classes=3), (0, 1, 2)).pairs}
    assert "FPR of class 2: a - b" in names


def test_several_principles_are_enforced_side_by_side() -> None:
    rows = table()
    promises = constitution(
        {"metric": "dp_gap", "group": "g", "threshold": 0.2},
        {"metric": "tpr_gap", "group": "g", "threshold": 0.1},
        {"metric": "accuracy", "threshold": 0.5},
    )
    found = enforce(promises, VALUES, rows.groups, rows.y, (1,))
    assert set(found.thresholds) == {"dp-gap", "tpr-gap"}
    assert sorted(set(found.tau().tolist())) == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize(
    ("metric", "least", "said"),
    [
        ("dp_gap", {"min_n": 190}, "rows, groups.min_n is 190"),
        ("tpr_gap", {"min_pos": 100}, "positives, groups.min_pos is 100"),
        ("fpr_gap", {"min_pos": 100}, "negatives, groups.min_pos is 100"),
    ],
)
def test_a_small_group_is_left_out_with_a_reason(
    metric: str, least: dict[str, int], said: str
) -> None:
    rows = table()
    keep = (rows.groups["g"] != 2) | (torch.arange(len(rows)) % 2 == 0)
    rows = rows.where(keep)
    found = enforced(metric, rows, **least)
    assert {c.value for c in found.cells} <= {"a", "b"}
    assert any("g = 'c'" in s and said in s for s in found.left_out)


def test_one_large_group_alone_has_nobody_to_be_compared_with() -> None:
    rows = table()
    rows = rows.where((rows.groups["g"] == 0) | (torch.arange(len(rows)) < 20))
    found = enforced("dp_gap", rows, min_n=100)
    assert not found.pairs
    assert "only one value of g" in found.left_out[-1]
    assert found.values(torch.zeros(1)) == {}


def test_nothing_enforced_is_no_cells() -> None:
    rows = table()
    promises = constitution({"metric": "accuracy", "threshold": 0.5})
    found = enforce(promises, VALUES, rows.groups, rows.y, (1,))
    assert found.membership(rows.groups, rows.y).shape == (0, len(rows))


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_cell_weights_are_the_gradient_of_the_lagrangian(seed: int) -> None:
    found = enforced("eo_difference", table())
    generator = torch.Generator().manual_seed(seed)
    multipliers = torch.rand(len(found.pairs), generator=generator)
    rates = torch.rand(len(found.cells), generator=generator)
    direct = multipliers @ found.differences(rates)
    assert float(found.weights(multipliers) @ rates) == pytest.approx(
        float(direct), abs=1e-5
    )


def test_gains_are_one_for_two_halves_and_small_for_small_cells() -> None:
    group = torch.tensor([0, 1] * 100 + [0] * 600)
    label = torch.tensor([0, 1] * 400)
    halves = EncodedRows(torch.zeros(200, 1), label[:200], {"g": group[:200]})
    found = enforced("dp_gap", halves)
    assert found.gains().tolist() == [1, 1]
    skewed = EncodedRows(torch.zeros(800, 1), label, {"g": group})
    found = enforced("dp_gap", skewed)
    assert found.gains()[0].item() == pytest.approx(4 / (800 / 700 + 800 / 100))


# --- multipliers ---


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=12),
    st.sampled_from([0.0, 0.5, 0.9]),
)
@settings(deadline=None, max_examples=50)
def test_multipliers_move_as_cooper_s_nupi(
    errors: list[tuple[float, float]], nu: float
) -> None:
    ki, kp = torch.tensor([0.3, 0.1]), torch.tensor([3.0, 0.5])
    ours = NuPI(ki, kp, nu)
    theirs = torch.nn.Parameter(torch.zeros(2))
    expected = nuPI(
        [theirs],
        lr=1.0,
        Ki=ki,
        Kp=kp,
        ema_nu=nu,
        init_type=nuPIInitType.ZEROS,
        maximize=True,
    )
    for error in errors:
        violation = torch.tensor(error)
        ours.step(violation)
        theirs.grad = violation.clone()
        expected.step()
        theirs.data.clamp_(min=0)
        torch.testing.assert_close(ours.multipliers, theirs.data)


def counts(rows: EncodedRows, times: int = 1) -> Counts:
    many = {"g": (VALUES["g"], rows.groups["g"].repeat(times).numpy())}
    label = rows.y.repeat(times).numpy()
    return Counts(("n", "y"), "y", {"sealed": tally(label, many, 2, masked=True)})


def test_the_margin_is_z_times_the_standard_error_and_never_below_zero() -> None:
    rows = table()
    found = enforced("tpr_gap", rows)
    promises = constitution({"metric": "tpr_gap", "group": "g", "threshold": 0.1})
    rates = torch.full((3,), 0.6)
    few = targets(found, promises, counts(rows), rates, torch.full((3,), 100.0))
    assert few.tolist() == [0] * 6
    sealed = counts(rows, 500)
    many = targets(found, promises, sealed, rates, torch.full((3,), 1e12))
    n = [c.positives for c in sealed.group("sealed", "g")]
    error = (0.24 / n[0] + 0.24 / n[1]) ** 0.5
    assert many[0].item() == pytest.approx(0.1 - (1.6449 + 1.2816) * error, abs=1e-4)
    # Rates that steer training on few rows leave their own uncertainty to cover.
    steered = targets(found, promises, sealed, rates, torch.full((3,), 20_000.0))
    assert (steered < many).all()


def test_a_group_that_is_not_sealed_aims_at_zero() -> None:
    rows = table()
    found = enforced("fpr_gap", rows)
    promises = constitution({"metric": "fpr_gap", "group": "g", "threshold": 0.1})
    without = rows.where(rows.groups["g"] < 2)
    values = {"g": (("a", "b"), without.groups["g"].numpy())}
    sealed = Counts(("n", "y"), "y", {"sealed": tally(without.y.numpy(), values, 2)})
    pooled = torch.full((3,), 1e9)
    aims = targets(found, promises, sealed, torch.full((3,), 0.5), pooled)
    assert aims.tolist()[1] == 0


def test_full_confidence_marks_nobody_and_none_everybody() -> None:
    assert z_value(1.0) == float("inf")
    assert z_value(0.0) == -float("inf")
    assert z_value(0.95) == pytest.approx(1.6449, abs=1e-4)


# --- the dual update ---


def dual_update(
    metric: str = "tpr_gap", **changes: float
) -> tuple[DualUpdate, EncodedRows]:
    rows = table(900)
    fold = torch.arange(len(rows)) % 3
    held_out = [(fold == i).nonzero()[:, 0] for i in range(3)]
    found = enforced(metric, rows)
    return DualUpdate(
        NetsOnRows(GENOME, rows), found, rows, held_out, brief(**changes)
    ), rows


def averaged(seeds: list[int]) -> torch.Tensor:
    return initial(GENOME, 4, 1, seeds)


def test_the_dual_update_pools_each_agent_on_its_own_fold() -> None:
    dual, rows = dual_update()
    report = dual.update(averaged([1, 1, 1]), torch.ones(3, dtype=torch.bool))
    everywhere = DualUpdate(
        NetsOnRows(GENOME, rows),
        dual.constraints,
        rows,
        [torch.arange(len(rows))],
        brief(),
    ).update(averaged([1]), torch.ones(1, dtype=torch.bool))
    assert report["violation"] == pytest.approx(everywhere["violation"])


def test_an_agent_that_is_lost_is_left_out_of_the_pool() -> None:
    first, _ = dual_update()
    weights = averaged([1, 2, 3])
    finite = torch.tensor([True, True, False])
    before = first.update(weights, finite)
    unflatten(weights, shapes(GENOME, 4, 1))["out.weight"][2] = torch.nan
    second, _ = dual_update()
    after = second.update(weights, finite)
    assert before["violation"] == after["violation"]
    assert not after["teaches"][2]
    assert second.eligible.tolist() == after["teaches"]


def test_agents_are_marked_when_sure_and_cleared_without_a_violation() -> None:
    dual, _ = dual_update()
    sizes = dual._sizes
    tau = float(dual.constraints.tau()[0])

    def rates(gap: float) -> torch.Tensor:
        found = torch.full_like(sizes, 0.4)
        found[:, 0] += gap
        return found

    for gap, violating in [(0.05, False), (0.15, False), (0.6, True), (0.15, True)]:
        dual._mark_violating(rates(gap))
        assert dual._violating.tolist() == [violating] * 3, gap
    dual._mark_violating(rates(tau - 0.01))
    assert dual._violating.tolist() == [False] * 3


def test_without_constraints_every_agent_may_teach() -> None:
    rows = table(90)
    promises = constitution({"metric": "accuracy", "threshold": 0.5})
    nothing = enforce(promises, VALUES, rows.groups, rows.y, (1,))
    nets = NetsOnRows(GENOME, rows, counts(rows))
    dual = DualUpdate(nets, nothing, rows, [torch.arange(90)], brief())
    dual.set_targets(promises, averaged([1]), rows)
    report = dual.update(averaged([1]), torch.ones(1, dtype=torch.bool))
    assert dual.eligible.all()
    assert report["violation"] == {}


# --- the fair head ---


@pytest.mark.parametrize("metric", GAPS)
def test_a_fair_head_closes_the_gap_without_seeing_the_group(metric: str) -> None:
    rows = table(3000)
    # Scores that favour group c: its rates are far above the others'.
    eta = torch.sigmoid(2 * rows.x[:, 0] + rows.x[:, 1] - 2.5).double()
    found = enforced(metric, rows)
    head = fit(
        found,
        rows,
        rows.batch(torch.arange(len(rows))),
        eta,
        torch.zeros(len(found.pairs)),
    )
    assert head is not None
    corrected = torch.from_numpy(head.correct(rows.x.double().numpy(), eta.numpy()))
    assert ((corrected >= 0) & (corrected <= 1)).all()

    def gap(score: torch.Tensor) -> float:
        predicted = (score >= 0.5).to(torch.int64)
        return max(found.values(rates_of(found, rows, predicted)).values())

    assert gap(eta) > 0.2
    assert gap(corrected) < 0.25 * gap(eta)


def test_a_fair_head_survives_storage_and_needs_something_to_enforce() -> None:
    rows = table(400)
    eta = torch.sigmoid(rows.x[:, 0]).double()
    found = enforced("eo_difference", rows)
    head = fit(
        found,
        rows,
        rows.batch(torch.arange(len(rows))),
        eta,
        torch.zeros(len(found.pairs)),
    )
    assert head is not None
    again = FairHead.from_dict(head.to_dict(), head.tensors())
    x, scores = rows.x.double().numpy(), eta.numpy()
    assert np.array_equal(again.correct(x, scores), head.correct(x, scores))
    nothing = enforced("dp_gap", rows, min_n=10_000)
    assert (
        fit(nothing, rows, rows.batch(torch.arange(len(rows))), eta, torch.zeros(0))
        is None
    )


# --- rates ---


@pytest.mark.parametrize("metric", GAPS)
def test_hard_and_soft_rates_are_those_of_fairlearn(metric: str) -> None:
    rows = table(seed=7)
    found = enforced(metric, rows)
    generator = torch.Generator().manual_seed(7)
    logit = torch.randn(1, len(rows), generator=generator, dtype=torch.float64)
    inside = found.membership(rows.groups, rows.y)
    answered = (logit >= 0).to(torch.int64)
    outcomes = torch.ones(len(found.cells), dtype=torch.long)
    hard = hard_rates(answered, inside, outcomes)[0].double() / inside.sum(1)
    expected = {}
    for condition in {cell.condition for cell in found.cells}:
        keep = torch.ones(len(rows), dtype=torch.bool)
        if condition is not None:
            keep = (rows.y == 1) == condition
        for kind, score, rate in (
            ("hard", answered[0], reference.selection_rate),
            ("soft", torch.sigmoid(logit[0]), reference.mean_prediction),
        ):
            expected[condition, kind] = reference.MetricFrame(
                metrics=rate,
                y_true=rows.y[keep].numpy(),
                y_pred=score[keep].numpy(),
                sensitive_features=rows.groups["g"][keep].numpy(),
            ).by_group
    for cell, rate, members in zip(found.cells, hard, inside, strict=True):
        own = {"hard": rate, "soft": soft_rates(logit[:, members, None], [cell])[0, 0]}
        for kind, value in own.items():
            theirs = expected[cell.condition, kind][cell.code]
            assert float(value) == pytest.approx(theirs, abs=1e-9)
