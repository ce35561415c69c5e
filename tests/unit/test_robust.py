"""Robust accuracy: attacks find the worst, and training keeps what is promised."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from module_world import X, Y, both, brief, net, rows, same, state, trained
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from safescale_ammt.attacks.ball import Ball
from safescale_ammt.attacks.pgd import n_fgsm
from safescale_ammt.config.roles import ROLES, Role
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.errors import ConstitutionError
from safescale_ammt.judging.findings import FAILS, HOLDS, UNDECIDED
from safescale_ammt.modules.robust import attacked_logits
from safescale_ammt.modules.safety import ConstitutionalSafetyLayer
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.modules.threatened import WARM_UP, ThreatenedRows
from safescale_ammt.training.constraints import Cell
from safescale_ammt.training.learner import soft_rates

PROMISE = {"adversarial_budget": 0.25, "min_robust_accuracy": 0.8}
LINF = Threat("linf", 0.25)


def linear() -> nn.Linear:
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, -1.0, 0.5, 0.25]]))
        model.bias.fill_(0.1)
    return model.eval()


def worst(model: nn.Linear, x: Tensor, y: Tensor, change: float) -> Tensor:
    """The least that a logit can be on the label's side, by any change of x."""
    return model(x)[:, 0].detach() - change * (2.0 * y - 1)


@pytest.mark.parametrize(
    ("norm", "dual"), [("linf", lambda w: w.abs().sum()), ("l2", lambda w: w.norm())]
)
def test_the_attack_finds_the_worst_of_a_linear_model(
    norm: str, dual: Callable[[Tensor], Tensor]
) -> None:
    model, eps = linear(), 0.3
    found = attacked_logits(model, X, Y, Threat(norm, eps)).detach()[:, 0]
    expected = worst(model, X, Y, eps * float(dual(model.weight.detach())))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


class Parts(nn.Module):
    """A linear model that is given its input in two parts."""

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.whole = whole

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.whole(torch.cat([a.flatten(1), b[:, None]], 1))


def test_a_row_of_several_parts_has_one_ball() -> None:
    model, eps = linear(), 0.3
    parts = (X[:, :3].reshape(-1, 3, 1), X[:, 3])
    found = attacked_logits(Parts(model), parts, Y, Threat("l2", eps)).detach()[:, 0]
    expected = worst(model, X, Y, eps * float(model.weight.detach().norm()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_an_attack_stays_in_the_range_and_leaves_what_is_outside() -> None:
    model, x = linear(), torch.tensor([[0.9, 0.1, 0.5, 3.0], [0.0, 1.0, 0.2, -2.0]])
    y = torch.tensor([0, 1])
    found = attacked_logits(model, x, y, Threat("linf", 0.2, (0.0, 1.0))).detach()
    moved = torch.tensor([[1.0, 0.0, 0.7, 3.0], [0.0, 1.0, 0.0, -2.0]])
    torch.testing.assert_close(found, model(moved).detach(), rtol=0, atol=1e-6)


def test_a_single_step_attack_begins_with_noise_and_may_leave_the_ball() -> None:
    model, y = linear(), Y[None]
    ball = Ball(LINF, X[None], torch.ones(1))
    draws = torch.full_like(X[None], 1.0)
    moved = n_fgsm(lambda x: model(x[0])[None], y, ball, [draws])
    step = -(2.0 * Y[:, None] - 1) * model.weight.detach().sign()
    torch.testing.assert_close(moved[0], X + 0.5 + 0.25 * step)


def shortcut(n: int, seed: int) -> TensorDataset:
    """Labels that one large input shows nearly, and ten tiny ones together surely."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 2, (n,), generator=generator)
    side = (2.0 * y - 1)[:, None]
    flip = torch.where(torch.rand(n, 1, generator=generator) < 0.08, -1.0, 1.0)
    tiny = 0.15 * side + 0.1 * torch.randn(n, 10, generator=generator)
    return TensorDataset(torch.cat([side * flip, tiny], 1), y, y % 2)


SHORTCUT = {
    "steps": 300,
    "trunk_steps": 60,
    "batch_size": 64,
    "ema": 0.9,
    "dual_every": 10,
    "merge": "soup",
}


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(11, 16), nn.ReLU(), nn.Linear(16, 1))


@pytest.fixture(scope="module")
def kept() -> tuple[nn.Module, Any, list[dict[str, Any]]]:
    """What training under the promise ends with."""
    events: list[dict[str, Any]] = []
    data = shortcut(1200, 1), shortcut(800, 2)
    options = {"log": events.append}
    return *trained(
        small(), *data, promises=PROMISE, options=options, **SHORTCUT
    ), events


def test_a_floor_under_attack_is_kept_that_plain_training_breaks(kept: Any) -> None:
    model, metrics, events = kept
    data = shortcut(1200, 1), shortcut(800, 2)
    reported = {"adversarial_budget": 0.25}
    plain, before = trained(small(), *data, promises=reported, **SHORTCUT)
    assert before["final_accuracy"] > 0.97
    assert before["robust"]["upper"] < 0.8
    assert metrics["robust"]["accuracy"] > 0.8
    assert metrics["robust"]["outcome"] == UNDECIDED
    assert metrics["twin"]["accuracy"] > 0.97
    last = [e for e in events if e["event"] == "round"][-1]
    assert last["violation"]["min-robust-accuracy"] < 0.02
    # What is only reported changes no bit, and none of what is not promised.
    again, _ = trained(small(), *data, **SHORTCUT)
    assert same(state(plain), state(again))
    assert not same(state(plain), state(model))


def test_the_attack_that_trains_is_as_strong_as_the_one_that_measures(
    kept: Any,
) -> None:
    """Catastrophic overfitting would show as rows that only one of two breaks."""
    model, _, _ = kept
    x, y, _ = shortcut(800, 3).tensors
    measured = attacked_logits(model, x, y, LINF)[:, 0] >= 0
    ball = Ball(LINF, x[None], torch.ones(1))
    draws = torch.rand(x[None].shape, generator=torch.Generator().manual_seed(0))
    moved = n_fgsm(lambda z: model(z[0])[None], y[None], ball, [draws])
    inner = model(moved[0])[:, 0] >= 0
    share = [float((found == y).float().mean()) for found in (measured, inner)]
    assert share[0] > share[1] - 0.03


def test_wrong_for_sure_is_still_worth_a_step() -> None:
    cell = Cell("", 0, "", 1, True, threat=LINF)
    logits = torch.tensor([[[-40.0], [-40.0]]], requires_grad=True)
    for cells, least in (([cell], 0.5), ([Cell("", 0, "", 1, True)], 0.0)):
        (slope,) = torch.autograd.grad(soft_rates(logits, cells).sum(), logits)
        assert bool((slope >= least).all())
        assert bool((slope > 1e-6).all()) == (least > 0)
    right = torch.tensor([[[0.0], [40.0]]])
    assert float(soft_rates(right, [cell])) == pytest.approx(0.5, abs=1e-6)


def test_the_radius_grows_after_the_trunk() -> None:
    at = ThreatenedRows((), brief(steps=100, trunk_steps=20)).radius
    assert (at(int(WARM_UP * 80) - 1), at(79)) == (1.0, 1.0)
    assert 0 < at(0) < at(10) < 1


@pytest.mark.parametrize(("branch", "own"), [(0.0, 80), (0.5, 45)])
def test_the_radius_grows_over_the_steps_behind_a_trunk_of_any_length(
    branch: float, own: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    met: list[float] = []
    grows = ThreatenedRows.radius

    def radius(self: ThreatenedRows, taken: int) -> float:
        met.append(grows(self, taken))
        return met[-1]

    monkeypatch.setattr(ThreatenedRows, "radius", radius)
    lengths = {"steps": 100, "trunk_steps": 20, "branch": branch}
    trained(net(), **lengths, promises=PROMISE)
    assert met[0] == pytest.approx(1 / (WARM_UP * own))
    # Each of the two agents meets each step's.
    assert met.count(1.0) == 2 * (own - math.ceil(WARM_UP * own) + 1)


ODD = nn.Sequential(nn.BatchNorm1d(8), nn.Dropout(0.3))


@pytest.mark.parametrize("execution", ["loop", "stacked"])
def test_what_was_stopped_goes_on_to_the_same_bits(
    tmp_path: Path, execution: str
) -> None:
    layers = ODD if execution == "loop" else []
    settings = {"promises": PROMISE, "checkpoint_every": 1, "execution": execution}
    whole, metrics = trained(net(1, *layers), **settings)
    assert metrics["execution"]["used"] == execution

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "round" and event["step"] == 20:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"checkpoints": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        trained(net(1, *layers), options={**options, "log": stop}, **settings)
    resumed, _ = trained(net(1, *layers), options=options, **settings)
    assert same(state(whole), state(resumed))
    unpromised, _ = trained(net(1, *layers), execution=execution)
    assert not same(state(whole), state(unpromised))


def test_stacked_nets_are_attacked_as_nets_in_a_loop_are() -> None:
    looped, _ = trained(net(), promises=PROMISE)
    stacked, metrics = trained(net(), promises=PROMISE, execution="stacked")
    assert metrics["execution"]["used"] == "stacked"
    for a, b in zip(looped.parameters(), stacked.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)


class Scaling(nn.Linear):
    """Writes on its input, as some layers do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (Scaling(4, 2), {}),
        (net(2).double(), {"gradient_checkpointing": True}),
        (net(2), {"mixed_precision": True, "merge": "distilled"}),
        (net(2), {"num_agents": "auto", "tune": "population"}),
        (nn.Sequential(nn.Linear(4, 2), nn.GELU(), nn.Linear(2, 3)), {"patience": 3}),
    ],
)
def test_odd_modules_and_settings_train_under_attack(
    model: nn.Module, changes: dict[str, Any]
) -> None:
    classes = 3 if "patience" in changes else 2
    given, held = both(classes=classes)
    before = given.tensors[0].clone()
    promises = {**PROMISE, "adversarial_norm": "l2", "max_bias": 0.3}
    _, metrics = trained(model, given, held, promises=promises, **changes)
    assert metrics["robust"]["attack"] == "pgd-10, l2"
    assert metrics["robust"]["accuracy"] <= metrics["final_accuracy"]
    assert torch.equal(given.tensors[0], before)


def test_a_batch_norm_keeps_nothing_of_attacked_rows() -> None:
    model = nn.BatchNorm1d(4)
    model.train()
    seen = attacked_logits(nn.Sequential(model, linear()), X, Y, LINF)
    assert (model.training, int(model.num_batches_tracked)) == (True, 0)
    assert bool(seen.isfinite().all())


def test_a_role_is_attacked_further_where_it_says_so() -> None:
    assert ROLES["robust"].attack > 1
    found = []
    for attack in (1.0, 2.0):
        roles = [Role("one", "attacked", attack=attack)]
        options = {"roles": roles}
        found.append(trained(net(), promises=PROMISE, options=options)[0])
    one, two = map(state, found)
    assert not same(one, two)
    plain = [
        trained(net(), options={"roles": [Role("one", "attacked", attack=a)]})[0]
        for a in (1.0, 2.0)
    ]
    assert same(*map(state, plain))


def law(**constraint: Any) -> dict[str, Any]:
    whole = {"metric": "robust_accuracy", "threshold": 0.9, **constraint}
    principle = {"id": "steady", "constraint": whole}
    return {
        "schema": 1,
        "principles": [principle],
        "groups": {"min_n": 30, "min_pos": 10},
    }


NEAR = {"threat": {"norm": "linf", "eps": 0.5}}


def test_a_constitution_promises_robust_accuracy_in_every_group() -> None:
    events: list[dict[str, Any]] = []
    data = [(d.tensors[0], d.tensors[1], {"sex": d.tensors[2]}) for d in both(600)]
    _, metrics = trained(
        net(),
        *data,
        promises=law(group="sex", **NEAR),
        options={"log": events.append},
    )
    rounds = [e for e in events if e["event"] == "round"]
    names = {"robust_accuracy: 0", "robust_accuracy: 1"}
    assert rounds[0]["multiplier"]["steady"].keys() == names
    (finding,) = metrics["findings"]
    assert finding["outcome"] == FAILS
    assert not metrics["feasible"]
    assert finding["value"] == min(rate["rate"] for rate in finding["by_group"])
    assert finding["reason"].startswith("robust_accuracy by sex under linf 0.5 is 0.")
    assert "violates >= 0.9" in finding["reason"]
    merge = next(e for e in events if e["event"] == "merge")
    assert merge["scores"]["soup"]["refuted"] == ["steady"]


def test_what_survives_is_undecided_and_never_shown() -> None:
    _, metrics = trained(
        net(), promises=law(threat={"norm": "l2", "eps": 0.01}, threshold=0.3)
    )
    (finding,) = metrics["findings"]
    assert (finding["outcome"], finding["lower"]) == (UNDECIDED, 0.0)
    assert "what it does not find" in finding["reason"]
    assert (metrics["feasible"], metrics["may_be_released"]) == (True, False)


def test_a_line_that_no_model_can_cross_holds_and_promises_nothing() -> None:
    _, metrics = trained(net(), promises=law(**NEAR | {"threshold": 0.0}))
    (finding,) = metrics["findings"]
    assert finding["outcome"] == HOLDS
    assert "no model can violate >= 0: nothing is promised." in finding["reason"]


def test_either_judge_reads_a_ball_its_own_way() -> None:
    # Of images in the pipeline; of any inputs in the Python API (`row_changes`).
    assert Constitution.from_dict(law(**NEAR)).threats == ()
    read = Constitution.from_dict(law(**NEAR), attacks=True)
    again = Constitution.from_dict(read.to_dict(), attacks=True)
    assert again == read
    assert (
        again.digest
        != Constitution.from_dict(
            law(threat={"norm": "linf", "eps": 0.4}), attacks=True
        ).digest
    )


@pytest.mark.parametrize(
    ("constraint", "says"),
    [
        ({}, "threat.norm is None, expected one of"),
        ({"threat": {"norm": "linf"}}, "threat.eps must be a radius >= 0, found None"),
        ({"threat": {"norm": "linf", "epsilon": 1}}, "the nearest is 'eps'"),
        ({"threat": "linf"}, "threat must be a mapping, found str"),
        ({"metric": "accuracy", **NEAR}, "judged without an attack; remove it"),
        ({"metric": "certified_accuracy", **NEAR}, "has no evaluator"),
        ({"op": "<=", **NEAR}, "reads '>='"),
    ],
)
def test_a_threat_that_means_nothing_is_one_sentence(
    constraint: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConstitutionError, match=says):
        Constitution.from_dict(law(**constraint), attacks=True)


def test_two_threats_are_two_promises_and_one_threat_is_one() -> None:
    raw = law(**NEAR)
    raw["principles"] += [
        {**law(threat={"norm": "l2", "eps": 1})["principles"][0], "id": "b"}
    ]
    assert len(Constitution.from_dict(raw, attacks=True).threats) == 2
    raw["principles"][1]["constraint"] = raw["principles"][0]["constraint"]
    with pytest.raises(ConstitutionError, match="contradict"):
        Constitution.from_dict(raw, attacks=True)


class Kinds(nn.Module):
    """Takes whole numbers, which have no small ball."""

    def __init__(self) -> None:
        super().__init__()
        self.of = nn.Embedding(2, 1)

    def forward(self, kind: Tensor) -> Tensor:
        return self.of(kind)


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        (Kinds(), ((Y, Y), (Y, Y)), "inputs that are no numbers have no small ball"),
        (net(), ((X, X[:, 0]), (X, X[:, 0])), "numbers are predicted"),
    ],
)
def test_what_cannot_be_attacked_is_undecided_and_said_once(
    model: nn.Module, data: Any, says: str
) -> None:
    events: list[dict[str, Any]] = []
    options = {"log": events.append}
    _, metrics = trained(model, *data, promises=PROMISE, options=options)
    (reason,) = metrics["left_out"]
    assert reason.startswith("min-robust-accuracy is undecided")
    assert says in reason
    assert not metrics["may_be_released"]
    assert "reason" in metrics["robust"]
    assert all(e["multiplier"] == {} for e in events if e["event"] == "round")


def test_a_loop_of_ones_own_leaves_robust_promises_out() -> None:
    layer = ConstitutionalSafetyLayer({**PROMISE, "max_bias": 0.1})
    x, label, group = rows(400)
    layer.update(x[:, :1], label, {"sex": group})
    assert not any("robust" in pair.name for pair in layer._constraints.pairs)  # type: ignore[union-attr]
    assert "could be attacked" in layer.left_out[0]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("adversarial_budget", -0.1),
        ("adversarial_budget", "much"),
        ("adversarial_norm", "l3"),
        ("adversarial_range", [1, 0]),
    ],
)
def test_a_sentence_names_the_key_that_was_written(key: str, value: Any) -> None:
    with pytest.raises(ConstitutionError, match=rf"^safety_constraints\.{key} "):
        Promises.read({**PROMISE, key: value}, ())


def test_a_range_may_be_an_array() -> None:
    promises = {**PROMISE, "adversarial_range": torch.tensor([-4.0, 4.0])}
    threat = Promises.read(promises, ()).threat
    assert threat == Threat("linf", 0.25, (-4.0, 4.0))


@pytest.mark.parametrize(("ends", "told"), [([0, 1], 1), ([-9, 9], 0)])
def test_rows_outside_of_a_declared_range_are_told(ends: list[int], told: int) -> None:
    promises = {**PROMISE, "adversarial_range": ends}
    _, metrics = trained(net(), promises=promises, steps=12, trunk_steps=4)
    said = [r for r in metrics["left_out"] if "160 rows for validation" in r]
    assert len(said) == told
