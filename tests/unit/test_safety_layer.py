"""The safety layer, promises in short, and the precision engine."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from module_world import net, trained
from torch import Tensor, nn

import safescale_ammt
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import (
    ConfigError,
    ConstitutionError,
    DataError,
    SafescaleError,
)
from safescale_ammt.judging.findings import FAILS, HOLDS, UNDECIDED
from safescale_ammt.modules.precision import AdaptivePrecisionEngine, memory_pressure
from safescale_ammt.modules.safety import ConstitutionalSafetyLayer
from safescale_ammt.modules.sugar import Promises
from safescale_ammt.training.enforcement import enforce
from safescale_ammt.training.multipliers import NuPI
from safescale_ammt.training.placement import ProcessGroup

N = 4000

pytestmark = pytest.mark.usefixtures("same_start")


def answers(gap: float) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Returns predictions whose rates differ by a gap, labels and groups."""
    group = torch.arange(N) % 2
    rank = (torch.arange(N) // 2) / (N // 2)
    prediction = (rank < 0.4 + gap * group).long()
    return prediction, prediction.clone(), {"sex": group}


P, Y, G = answers(0.05)
LOGITS = P - 0.5


@pytest.mark.parametrize(
    ("prediction", "label", "groups", "says"),
    [
        (P + 0.3, Y, G, "prediction of shape .* no code of a class"),
        (P, Y + 5, G, "label of shape .* from 0 to 1"),
        (P, Y - 1, G, "label of shape .* from 0 to 1"),
        (P, Y * float("nan"), G, "no code of a class"),
        (["a", "b"] * 2000, Y, G, "no code of a class"),
        (torch.stack([P, P], 1), Y, G, "expected one a row"),
        (P[:9], Y, G, "There are 4000 labels, but prediction has 9"),
        (P, Y, {"sex": G["sex"][:9]}, "but sex has 9 values"),
        (P, Y, {"sex": torch.stack([P, P], 1)}, "every row needs one value"),
        (P, Y, G["sex"], "groups is a Tensor, expected a mapping"),
        (P, Y, None, "groups is a NoneType, expected a mapping"),
    ],
)
def test_columns_that_cannot_be_judged_are_one_sentence(
    prediction: Any, label: Any, groups: Any, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        ConstitutionalSafetyLayer({"max_bias": 0.05}).findings(
            prediction, label, groups
        )


@pytest.mark.parametrize(
    ("logits", "label", "groups", "says"),
    [
        (LOGITS * float("nan"), Y, G, "expected a row at least, and finite numbers"),
        (LOGITS[:0], Y[:0], {"sex": Y[:0]}, "expected a row at least"),
        (LOGITS[:9], Y, G, "has 4000 values"),
        (LOGITS[:, None].expand(-1, 3), Y, G, "3 logits a row, which do not fit 2"),
        (LOGITS, Y + 1, G, "no code of a class"),
    ],
)
def test_rows_that_cannot_move_multipliers_are_one_sentence(
    logits: Any, label: Any, groups: Any, says: str
) -> None:
    with pytest.raises(DataError, match=says):
        ConstitutionalSafetyLayer({"max_bias": 0.05}).update(logits, label, groups)


def test_a_batch_may_have_other_groups_and_must_have_those_of_the_first() -> None:
    layer = ConstitutionalSafetyLayer({"max_bias": 0.01})
    # Arrays and lists are columns too.
    layer.update(LOGITS.numpy(), Y.tolist(), {"sex": G["sex"].numpy()})
    layer.update(LOGITS, Y, G)
    assert float(layer.penalty(LOGITS, Y, G)) != 0
    assert float(layer.penalty(LOGITS, Y, {"sex": G["sex"] + 5})) == 0
    with pytest.raises(DataError, match="had the group 'sex'; give it always"):
        layer.penalty(LOGITS, Y, {})
    with pytest.raises(DataError, match="4000 labels, but logits has 9 values"):
        layer.penalty(LOGITS[:9], Y, G)


def test_what_a_layer_is_made_of_is_read_at_once() -> None:
    with pytest.raises(ConstitutionError, match="the nearest is 'max_bias'"):
        ConstitutionalSafetyLayer({"max_bais": 0.05})
    with pytest.raises(ConfigError, match="classes is 1, expected a whole number >= 2"):
        ConstitutionalSafetyLayer({}, classes=1)
    with pytest.raises(ConfigError, match="config is a dict"):
        ConstitutionalSafetyLayer({}, config={"dual_ki": 1.0})  # type: ignore[arg-type]


def test_what_a_layer_has_not_judged_is_not_released() -> None:
    robust = {"adversarial_budget": 0.1, "min_robust_accuracy": 0.9}
    layer = ConstitutionalSafetyLayer(robust)
    found = layer.findings(P, Y, G)
    assert layer.left_out[0].startswith("min-robust-accuracy is undecided")
    assert not layer.may_be_released(found)
    assert not ConstitutionalSafetyLayer({"max_bias": 0.5}).may_be_released([])
    assert ConstitutionalSafetyLayer({}).may_be_released([])


def test_numbers_of_numpy_and_torch_are_numbers() -> None:
    for number in (np.float32(0.5), torch.tensor(0.5), np.array(0.5)):
        law = Promises.read({"max_bias": number}, ("sex",)).constitution
        assert law.principles[0].constraint.threshold == 0.5


@pytest.mark.parametrize(
    ("gap", "outcome"), [(0.0, HOLDS), (0.05, UNDECIDED), (0.3, FAILS)]
)
def test_findings_come_with_bounds_and_say_whether_a_model_may_be_released(
    gap: float, outcome: str
) -> None:
    layer = ConstitutionalSafetyLayer({"max_bias": 0.05})
    prediction, label, groups = answers(gap)
    (found,) = layer.findings(prediction, label, groups)
    assert (found.outcome, found.principle) == (outcome, "max-bias-sex")
    assert found.lower <= found.value <= found.upper
    assert found.value == pytest.approx(gap, abs=1e-3)
    assert layer.may_be_released([found]) is (outcome == HOLDS)
    violations = layer.violations(prediction, label, groups)
    assert violations["max-bias-sex"] == pytest.approx(gap - 0.05, abs=1e-3)


def test_a_constitution_may_be_a_file_a_mapping_or_an_object(tmp_path: Path) -> None:
    gap = {"metric": "dp_gap", "group": "sex", "threshold": 0.05}
    law = {"schema": 1, "principles": [{"id": "alike", "constraint": gap}]}
    file = tmp_path / "constitution.yaml"
    file.write_text(yaml.safe_dump(law))
    for given in (law, file, str(file), Constitution.from_dict(law)):
        (found,) = ConstitutionalSafetyLayer(given).findings(*answers(0.2))
        assert (found.principle, found.outcome) == ("alike", FAILS)


def test_the_penalty_is_the_lagrangian_of_the_multipliers_that_nu_pi_moves() -> None:
    layer = ConstitutionalSafetyLayer({"max_bias": 0.05})
    prediction, label, groups = answers(0.3)
    logits = (4.0 * prediction - 2).requires_grad_()
    assert float(layer.penalty(logits, label, groups).detach()) == 0
    layer.begin(label, groups)
    assert layer.left_out == ()
    violation = layer.update(logits, label, groups)["max-bias-sex"]
    assert violation == pytest.approx(0.25, abs=1e-3)
    penalty = layer.penalty(logits, label, groups)
    codes = {"sex": groups["sex"]}
    law = Promises.read({"max_bias": 0.05}, ("sex",)).constitution
    cells = enforce(law, {"sex": ("0", "1")}, codes, label, (1,))
    config, gains = TrainingConfig(), cells.gains()
    plain = NuPI(config.dual_ki * gains, config.dual_kp * gains, config.dual_nu)
    plain.step(cells.differences(torch.tensor([0.4, violation + 0.45])) - 0.05)
    chance = torch.sigmoid(logits.detach())
    soft = torch.stack([chance[groups["sex"] == i].mean() for i in (0, 1)])
    expected = plain.multipliers @ cells.differences(soft)
    torch.testing.assert_close(penalty.detach(), expected)
    (slope,) = torch.autograd.grad(penalty, logits)
    # Down with the group that is answered yes more often, up with the other.
    assert (slope[groups["sex"] == 1] > 0).all()
    assert (slope[groups["sex"] == 0] < 0).all()
    one_group = {"sex": torch.ones(10)}
    assert layer.penalty(logits[:10], label[:10], one_group).isfinite()


def test_ratios_floors_and_strata_steer_a_loop_of_ones_own() -> None:
    line = {"metric": "dp_ratio", "group": "sex", "given": "half", "threshold": 0.9}
    law = {
        "schema": 1,
        "principles": [
            {"id": "within", "constraint": line, "train": {"enforce": True}},
            {
                "id": "finds",
                "constraint": {"metric": "recall", "threshold": 0.9},
                "train": {"enforce": True},
            },
        ],
        "groups": {"min_n": 100, "min_pos": 20},
    }
    layer = ConstitutionalSafetyLayer(law)
    prediction, _, groups = answers(-0.2)
    label = torch.ones(N, dtype=torch.long)
    groups = {**groups, "half": (torch.arange(N) // 2) % 2}
    logits = (4.0 * prediction - 2).requires_grad_()
    beyond = layer.update(logits, label, groups)
    # .2 of the one group, .4 of the other: half of what is promised at least.
    assert beyond["within"] == pytest.approx(0.9 - 0.5, abs=0.02)
    assert beyond["finds"] == pytest.approx(0.9 - 0.3, abs=0.02)
    (slope,) = torch.autograd.grad(layer.penalty(logits, label, groups), logits)
    # Up with everybody for the floor, and most with whom the ratio finds too seldom.
    assert (slope[groups["sex"] == 1] < 0).all()
    assert slope[groups["sex"] == 1].sum() < slope[groups["sex"] == 0].sum()
    found = layer.findings(prediction, label, groups)
    assert [f.outcome for f in found] == [FAILS, FAILS]
    lost = layer.findings(prediction, label, {"sex": groups["sex"]})
    assert [f.principle for f in lost] == ["finds"]
    assert "the rows have no group 'half'" in layer.left_out[0]


def test_columns_of_other_lengths_and_promises_without_groups_are_said() -> None:
    layer = ConstitutionalSafetyLayer({"max_bias": 0.05, "min_accuracy": 0.5})
    prediction, label, groups = answers(0.0)
    with pytest.raises(DataError, match="4000 labels, but sex has 9 values"):
        layer.findings(prediction, label, {"sex": groups["sex"][:9]})
    (found,) = layer.findings(prediction, label, {})
    assert (found.metric, found.outcome) == ("accuracy", HOLDS)
    assert "max-bias is undecided" in layer.left_out[0]
    assert not layer.may_be_released([found])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"max_bais": 0.1}, "the nearest is 'max_bias'"),
        ({"max_bias": "little"}, "max_bias must be a number"),
        ({"max_bias": 3}, "outside"),
        ({"adversarial_budget": -1}, "must be a radius >= 0"),
        ({"adversarial_norm": "l2"}, "stand beside adversarial_norm"),
        ({"adversarial_budget": 1, "adversarial_norm": "l1"}, "'l1', expected one of"),
        ({"adversarial_budget": 1, "adversarial_range": [1, 0]}, "least and the gre"),
        ({"adversarial_budget": 1, "adversarial_range": 0.5}, "least and the great"),
        ({"adversarial_budget": 1, "min_robust_accuracy": 2}, "outside"),
        ({"min_robust_accuracy": 0.5}, "stand beside"),
        (7, "must be a mapping"),
    ],
)
def test_promises_that_mean_nothing_are_one_sentence(given: Any, says: str) -> None:
    with pytest.raises(ConstitutionError, match=says):
        Promises.read(given, ("sex",))


def test_an_attack_can_refute_a_robust_accuracy_and_never_show_one() -> None:
    _, metrics = trained(
        net(), promises={"adversarial_budget": 0.0, "min_robust_accuracy": 0.3}
    )
    assert metrics["robust"]["outcome"] == UNDECIDED
    assert metrics["robust"]["lower"] > 0.3
    assert (metrics["feasible"], metrics["may_be_released"]) == (True, False)
    _, metrics = trained(
        net(), promises={"adversarial_budget": 3.0, "min_robust_accuracy": 0.9}
    )
    assert metrics["robust"]["outcome"] == FAILS
    assert not metrics["feasible"]


# --- the precision engine ---


def engine(pressure: float = 0.1, **settings: Any) -> AdaptivePrecisionEngine:
    made = AdaptivePrecisionEngine(pressure=lambda: pressure, **settings)
    made.speedup = settings.pop("speedup", 0.5)
    return made


@pytest.mark.parametrize(
    ("pressure", "epoch", "wanted", "used"),
    [
        (0.95, 9, "int8", "bfloat16"),
        (0.8, 9, "float16", "bfloat16"),
        (0.1, 0, "float16", "float32"),
        (0.1, 9, "float32", "float32"),
        (0.7, 9, "float32", "float32"),
    ],
)
def test_thresholds_decide_and_say_what_the_hardware_does_not_grant(
    pressure: float, epoch: float, wanted: str, used: str
) -> None:
    events: list[dict[str, Any]] = []
    made = engine(pressure, log=events.append)
    assert made.decide(epoch) == used
    (event,) = events
    assert (event["wanted"], event["used"]) == (wanted, used)
    assert (event["pressure"], event["speedup"]) == (pressure, 0.5)
    assert ("nothing trains in int8" in event["reason"]) is (wanted == "int8")
    assert made.decide(epoch) == used
    assert len(events) == 1
    assert made.decisions == events


def test_thresholds_that_are_none_are_refused_and_a_device_may_be_a_name() -> None:
    with pytest.raises(ConfigError, match="memory_threshold is"):
        AdaptivePrecisionEngine(memory_threshold=1.5)
    with pytest.raises(ConfigError, match="gradient_stability_threshold is nan"):
        AdaptivePrecisionEngine(gradient_stability_threshold=math.nan)
    engine = AdaptivePrecisionEngine(device="cpu", pressure=lambda: np.float32(0.95))
    assert engine.decide(0.0) == "bfloat16"


@pytest.mark.parametrize(
    ("odd", "says"),
    [
        ({"memory_threshold": "high"}, "memory_threshold is 'high', expected a number"),
        ({"memory_threshold": True}, "memory_threshold is True"),
        ({"gradient_stability_threshold": None}, "is None, expected a number from 0"),
        ({"gradient_stability_threshold": 0.0}, "is 0, expected more than 0"),
        ({"early_epochs": -1}, "early_epochs is -1"),
        ({"early_epochs": math.nan}, "early_epochs is nan"),
        ({"switching": "no"}, "switching is 'no', expected True or False"),
        ({"mixed": 1}, "mixed is 1, expected True or False"),
        ({"device": "gpu"}, "device is 'gpu', expected a device of torch's"),
        ({"device": ["cpu"]}, r"device is \['cpu'\]"),
        ({"pressure": 0.5}, "pressure is a float, expected a function"),
        ({"log": "print"}, "log is a str, expected a function"),
    ],
)
def test_odd_options_of_the_engine_are_one_sentence(
    odd: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        AdaptivePrecisionEngine(**odd)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda e: e.decide("first"), "epoch is 'first'"),
        (lambda e: e.decide(math.nan), "epoch is nan"),
        (lambda e: e.note([1.0]), "The gradients are list, expected a tensor"),
        (lambda e: e.note(torch.ones(3)), r"a tensor \(3,\) of torch.float32"),
        (lambda e: e.note(torch.ones(0, 3)), r"a tensor \(0, 3\) of torch.float32"),
        (lambda e: e.note(torch.ones(2, 3).long()), "of torch.int64"),
        (lambda e: e.probe(None), "step is a NoneType, expected a function"),
    ],
)
def test_odd_questions_to_the_engine_are_one_sentence(ask: Any, says: str) -> None:
    with pytest.raises(SafescaleError, match=says):
        ask(engine())
    for pressure in (math.nan, 1.5, None, "full"):
        with pytest.raises(ConfigError, match="what pressure gives is"):
            AdaptivePrecisionEngine(pressure=lambda p=pressure: p).decide(0)


def test_several_processes_decide_by_the_largest_pressure_and_gradient() -> None:
    class Pair(ProcessGroup):
        """Two processes of which the other has other figures."""

        size = 2

        def __init__(self, other: float) -> None:
            self.other = torch.tensor([other], dtype=torch.float64)

        def all_gather(self, part: Tensor, counts: list[int]) -> Tensor:
            return torch.cat([part, self.other])

        def broadcast(self, value: Tensor) -> None:
            value.copy_(self.other[0])

    assert engine(0.1, group=Pair(0.95)).decide(9) == "bfloat16"
    made = engine(0.95, gradient_stability_threshold=2.0, group=Pair(0.0))
    assert made.decide(9) == "bfloat16"
    made._group = Pair(3.0)
    made.note(torch.ones(1, 1))
    assert made.used == "float32"
    made.probe(lambda: None)
    assert made.speedup == 3.0


def test_unstable_gradients_go_back_to_full_precision_at_once() -> None:
    made = engine(0.95, gradient_stability_threshold=2.0)
    assert made.decide(5) == "bfloat16"
    made.note(torch.tensor([[1.0, 1.0]]))
    assert made.used == "bfloat16"
    made.note(torch.tensor([[1.0, 1.0], [3.0, 0.0]]))
    assert made.used == "float32"
    assert made.decide(5) == "float32"
    made.note(torch.tensor([[math.nan]]))
    assert made.decide(5) == "float32"
    assert made.decisions[-1]["reason"].endswith("gradients are unstable.")


def test_speed_is_used_only_where_a_probe_finds_it() -> None:
    fast, slow = engine(mixed=True), engine(mixed=True, switching=False)
    fast.speedup, slow.speedup = 1.2, 1.02
    assert (fast.decide(0), slow.decide(0)) == ("bfloat16", "float32")
    assert "asks for bfloat16; bfloat16 is 1.02 times" in slow.decisions[0]["reason"]
    seen: list[str] = []
    made = AdaptivePrecisionEngine(mixed=True)

    def step() -> None:
        seen.append(made.used)
        with made.autocast():
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert (product.dtype == torch.bfloat16) is (made.used == "bfloat16")

    made.probe(step)
    assert seen == ["float32", "bfloat16"] * 4
    assert made.speedup > 0
    assert 0 <= memory_pressure(torch.device("cpu")) <= 1


def test_a_module_trains_in_bfloat16_under_pressure() -> None:
    seen: set[torch.dtype] = set()

    class Watched(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            seen.add(out.dtype)
            return out

    model = nn.Sequential(Watched(4, 8), nn.ReLU(), Watched(8, 1))
    settings = {"precision_switching_enabled": True, "memory_threshold": 1e-6}
    _, metrics = trained(model, **settings, steps=90)
    assert metrics["precision"]["used"] == "bfloat16"
    assert torch.bfloat16 in seen
    assert metrics["final_accuracy"] > 0.7


# --- the front door ---


def test_public_names_load_on_first_use_and_are_told() -> None:
    for name in safescale_ammt.__all__:
        assert getattr(safescale_ammt, name) is not None
    assert safescale_ammt.SAFESCALEAMMTTrainer.__name__ == "SAFESCALEAMMTTrainer"
    assert safescale_ammt.TrainingConfig is TrainingConfig


def test_a_config_is_made_without_torch() -> None:
    code = (
        "import sys; from safescale_ammt import Role, TrainingConfig; "
        "TrainingConfig(agent_specializations=['vision']); "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
