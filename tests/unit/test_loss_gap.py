"""Promises on losses: groups whose numbers are predicted equally well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from module_world import net, rows, same, state, trained

from safescale_ammt.constitution.constitution import Constitution, GroupRule
from safescale_ammt.constitution.losses import BoundedLoss
from safescale_ammt.constitution.principles import Principle
from safescale_ammt.errors import ConstitutionError, DataError
from safescale_ammt.judging.findings import FAILS, HOLDS, UNDECIDED, Finding
from safescale_ammt.judging.loss_gap import judge_loss_gap
from safescale_ammt.model.network import predicted
from safescale_ammt.modules.safety import ConstitutionalSafetyLayer
from safescale_ammt.training.bounded_loss import hard_losses, soft_losses
from safescale_ammt.training.constraints import Cell, cell_sums, hard_rates
from safescale_ammt.training.learner import soft_rates

LOSS = {"kind": "absolute", "bound": 2.0}


def law(**constraint: Any) -> dict[str, Any]:
    own = {"metric": "loss_gap", "group": "group", "threshold": 0.1, "loss": LOSS}
    return {
        "schema": 1,
        "principles": [{"id": "even", "constraint": {**own, **constraint}}],
        "groups": {"min_n": 30, "min_pos": 1},
    }


def promised(threshold: float = 0.1, **more: Any) -> Principle:
    raw = law(threshold=threshold, **more)
    return Constitution.from_dict(raw, numbers=True).principles[0]


def judged(
    means: tuple[float, ...], n: int, threshold: float = 0.1, seed: int = 1
) -> Finding:
    """Groups whose losses are beta-distributed around means, n rows each."""
    draw = np.random.default_rng(seed)
    losses = np.concatenate([draw.beta(10 * m, 10 * (1 - m), n) for m in means])
    codes = np.repeat(np.arange(len(means)), n)
    names = [str(i) for i in range(len(means))]
    sizes = GroupRule(30, 1)
    order = draw.permutation(len(codes))
    found = [
        judge_loss_gap(promised(threshold), x, g, sizes, names=names, alpha=0.05)
        for x, g in ((losses, codes), (losses[order], codes[order]))
    ]
    assert (found[0].outcome, found[0].upper) == (found[1].outcome, found[1].upper)
    return found[0]


@pytest.mark.parametrize(
    ("means", "n", "outcome"),
    [
        ((0.3, 0.3), 3000, HOLDS),
        ((0.3, 0.3, 0.31), 3000, HOLDS),
        ((0.3, 0.5), 3000, FAILS),
        ((0.3, 0.3, 0.5), 3000, FAILS),
        ((0.3, 0.36), 100, UNDECIDED),
        ((0.3, 0.3), 20, UNDECIDED),
        ((0.3,), 3000, UNDECIDED),
    ],
)
def test_a_gap_of_losses_holds_fails_or_is_undecided(
    means: tuple[float, ...], n: int, outcome: str
) -> None:
    found = judged(means, n)
    assert found.outcome == outcome
    assert found.reason
    if outcome == FAILS:
        assert found.lower is not None
        assert found.lower > 0.1
    if n < 30:
        assert found.too_small == ("0", "1")


@pytest.mark.parametrize("gap", [0.0999, 0.1001])
def test_at_the_line_neither_is_shown_more_often_than_alpha(gap: float) -> None:
    """Of 100 at .05 more than 12 come once in a thousand."""
    found = [judged((0.3, 0.3 + gap), 400, seed=i).outcome for i in range(100)]
    assert found.count(FAILS if gap < 0.1 else HOLDS) <= 12


def test_losses_are_shares_of_the_bound() -> None:
    y = torch.tensor([[0.0], [0.0], [0.0], [0.0]])
    out = torch.tensor([[1.0], [-1.0], [9.0], [float("nan")]])
    absolute = hard_losses(BoundedLoss("absolute", 2.0), out, y)
    squared = hard_losses(BoundedLoss("squared", 2.0), out, y)
    assert absolute.tolist() == [0.5, 0.5, 1.0, 1.0]
    assert squared.tolist() == [0.25, 0.25, 1.0, 1.0]
    two = hard_losses(BoundedLoss("absolute", 2.0), out[:2].T, torch.zeros(1, 2))
    assert two.tolist() == [0.5]


def test_the_pipeline_refuses_what_only_the_trainer_predicts() -> None:
    with pytest.raises(ConstitutionError, match="only train_model of the Python API"):
        Constitution.from_dict(law())
    with pytest.raises(ConstitutionError, match="predicts numbers"):
        Constitution.from_dict(law(), attacks=True)
    read = Constitution.from_dict(law(), numbers=True)
    again = Constitution.from_dict(read.to_dict(), numbers=True)
    assert again == read
    other = Constitution.from_dict(
        law(loss={"kind": "squared", "bound": 2}), numbers=True
    )
    assert other.digest != read.digest
    assert "in absolute error up to 2" in read.principles[0].promise


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        ({"loss": {"kind": "absolute"}}, "loss.bound must be the largest error"),
        ({"loss": {"bound": 0}}, "found 0"),
        ({"loss": {"kind": "huber", "bound": 1}}, "loss.kind is 'huber'"),
        ({"loss": {"bounds": 1}}, "the nearest is 'bound'"),
        ({"loss": 5.0}, "loss must be a mapping, found float"),
        ({"metric": "dp_gap"}, "compares no losses; remove it"),
        ({"group": None}, "group must name a group for loss_gap"),
        ({"given": "age"}, "compares no groups within strata"),
        ({"op": ">="}, "reads '<='"),
        ({"threshold": None}, "needs a threshold"),
        ({"threat": {"norm": "l2", "eps": 1}}, "judged without an attack"),
    ],
)
def test_a_loss_that_means_nothing_is_one_sentence(
    constraint: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConstitutionError, match=says):
        Constitution.from_dict(law(**constraint), numbers=True)


@pytest.mark.parametrize(
    "given",
    [
        {"max_loss_gap": 0.1},
        {"loss_bound": 1.0},
        {"max_loss_gap": 0.1, "loss_bound": 0},
        {"max_loss_gap": float("nan")},
    ],
)
def test_a_short_promise_without_its_bound_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ConstitutionError, match=r"loss_bound|must be finite"):
        ConstitutionalSafetyLayer(given)


def uneven(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers of two groups: one of them, a quarter, follows another line."""
    x = rows(n, seed)[0]
    group = (torch.arange(n) % 4 == 0).long()
    x[:, 3] = group
    return x, 2 * x[:, 0] * (1 - 1.4 * group) + x[:, 1], group


def test_a_promise_on_losses_is_judged_where_numbers_are_predicted() -> None:
    given, held = uneven(400, 1), uneven(600, 2)
    short = {"max_loss_gap": 0.9, "loss_bound": 3.0, "max_bias": 0.1}
    _, metrics = trained(net(), given, held, promises=short, steps=60, trunk_steps=20)
    (finding,) = metrics["findings"]
    assert (finding["principle"], finding["outcome"]) == ("max-loss-gap-group", HOLDS)
    assert "about classes" in " ".join(metrics["left_out"])
    _, metrics = trained(net(), given, held, promises=law(threshold=0.9))
    assert metrics["may_be_released"]


def test_a_constant_keeps_every_gap_and_is_a_persons_to_decide() -> None:
    x, _, group = uneven(400, 1)
    noise = torch.randn(800, generator=torch.Generator().manual_seed(5))
    given, held = (x, noise[:400], group), (x, noise[400:], group)
    _, metrics = trained(net(), given, held, promises=law(threshold=0.5))
    assert metrics["findings"][0]["outcome"] == HOLDS
    assert "one number for everybody" in metrics["doubts"][0]
    assert (metrics["may_be_released"], metrics["needs_human"]) == (False, True)
    allowed = {**law(threshold=0.5), "gate": {"allow_constant": True}}
    assert trained(net(), given, held, promises=allowed)[1]["may_be_released"]


def test_of_classes_a_promise_on_losses_is_undecided() -> None:
    _, metrics = trained(net(), promises=law())
    assert "classes are predicted" in metrics["left_out"][0]
    assert "about numbers" in metrics["left_out"][0]
    assert not metrics["may_be_released"]


def test_a_missing_number_to_predict_is_refused() -> None:
    x, y, group = uneven(100, 1)
    with pytest.raises(DataError, match="1 targets that are missing"):
        trained(
            net(),
            (x, y.index_fill(0, torch.tensor(3), torch.nan), group),
            (x, y, group),
        )


@pytest.mark.parametrize("kind", ["absolute", "squared"])
def test_training_keeps_a_gap_that_plain_training_breaks(kind: str) -> None:
    given, held = uneven(1500, 1), uneven(1500, 2)
    raw = law(loss={"kind": kind, "bound": 2.0}, threshold=0.15)
    long = {"steps": 200, "trunk_steps": 40, "dual_ki": 1.0, "batch_size": 64}
    judged_alone = law(loss={"kind": kind, "bound": 2.0}, threshold=0.15)
    judged_alone["principles"][0]["train"] = {"enforce": False}
    _, free = trained(net(), given, held, promises=judged_alone, **long)
    events: list[dict[str, Any]] = []
    log = {"log": events.append}
    _, bound = trained(net(), given, held, promises=raw, options=log, **long)
    (broken,), (kept,) = free["findings"], bound["findings"]
    assert (broken["outcome"], free["feasible"]) == (FAILS, False)
    assert (kept["outcome"], bound["may_be_released"]) == (HOLDS, True)
    assert bound["final_r2"] > 0.5
    update = next(e for e in events if "violation" in e)
    assert set(update["violation"]) == {"even"}
    assert "not monitored" in " ".join(bound["left_out"])


@pytest.mark.parametrize("execution", ["loop", "stacked"])
def test_what_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, execution: str
) -> None:
    given, held = uneven(400, 1), uneven(200, 2)
    settings = {
        "promises": law(threshold=0.01),
        "checkpoint_every": 1,
        "execution": execution,
        "agent_specializations": ["generalist", "robust"],
    }
    model, _ = trained(net(), given, held, **settings)
    plain = {**settings, "promises": law(threshold=0.01)}
    plain["promises"]["principles"][0]["train"] = {"enforce": False}
    assert not same(state(model), state(trained(net(), given, held, **plain)[0]))

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["step"] == 20:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"checkpoints": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        trained(net(), given, held, options={**options, "log": stop}, **settings)
    assert any(tmp_path.iterdir())
    again, _ = trained(net(), given, held, options=options, **settings)
    assert same(state(again), state(model))


@pytest.mark.parametrize("kind", ["absolute", "squared"])
def test_a_soft_loss_is_the_hard_one_up_to_the_bound_and_has_a_slope_beyond(
    kind: str,
) -> None:
    loss = BoundedLoss(kind, 2.0)
    out = torch.tensor([[0.5], [1.9], [6.0], [-60.0]], requires_grad=True)
    y = torch.zeros(4, 1)
    soft, hard = soft_losses(loss, out, y), hard_losses(loss, out, y)
    torch.testing.assert_close(soft[:2], hard[:2])
    assert bool((soft[2:] > hard[2:]).all())
    (slope,) = torch.autograd.grad(soft.sum(), out)
    assert bool((slope[:3] > 0).all())
    assert float(slope[3]) < 0


def test_cells_of_losses_sum_what_is_lost_and_those_of_classes_count() -> None:
    loss = BoundedLoss("absolute", 2.0)
    cells = [Cell("g", i, str(i), 0, None, loss=loss) for i in (0, 1)]
    out = torch.tensor([[[1.0], [1.0], [5.0]], [[0.0], [0.0], [2.0]]])
    y = torch.tensor([[0.0], [1.0], [1.0]])
    inside = torch.tensor([[True, True, False], [False, True, True]])
    sums = cell_sums(out, y, inside, cells)
    assert sums.tolist() == [[0.5, 1.0], [0.5, 1.0]]
    # Cell by cell: rows 0 and 1 of the first, 1 and 2 of the second.
    order = torch.tensor([0, 1, 1, 2])
    soft = soft_rates(out[:, order], cells, y[order].expand(2, -1, -1))
    torch.testing.assert_close(soft[1], torch.tensor([0.25, 0.5]))
    classes = [Cell("g", i, str(i), 1, None) for i in (0, 1)]
    label = torch.tensor([0, 1, 1])
    counted = cell_sums(out - 0.5, label, inside, classes)
    wanted = hard_rates(predicted(out - 0.5), inside, torch.tensor([1, 1]))
    assert counted.tolist() == wanted.tolist() == [[2.0, 2.0], [0.0, 1.0]]


@pytest.mark.parametrize("form", ["distilled", "ensemble"])
def test_other_forms_are_judged_by_their_losses_too(form: str) -> None:
    given, held = uneven(400, 1), uneven(400, 2)
    _, metrics = trained(net(), given, held, promises=law(threshold=0.9), merge=form)
    assert metrics["choice"] == form
    assert metrics["findings"][0]["outcome"] == HOLDS
