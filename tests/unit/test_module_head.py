"""The fair head of a module: fitted where the plain forms break the promise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from far_device import far_device
from module_world import net, rows, trained
from torch import Tensor, nn

from safescale_ammt.model.fair_head import FairHead, Part
from safescale_ammt.modules.fair_head import INPUTS, LOGIT, Head, Headed, observed

pytestmark = pytest.mark.usefixtures("same_start")
PROMISE = {"max_bias": 0.1}
UNHELD: dict[str, Any] = {"steps": 150, "trunk_steps": 150, "promises": PROMISE}
"""A training all of which is trunk, so that no multiplier steers it."""


class Parts(nn.Module):
    """Takes its inputs in two parts."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.inside(torch.cat([a, b], 1))


class Scales(nn.Module):
    """Has no layer whose inputs could be read."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.1, 0.0, 0.0, 0.1]))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def told(n: int, seed: int, *, parts: bool) -> tuple[Any, Tensor, Tensor]:
    """Returns rows whose group can be guessed, and not read."""
    x, y, g = rows(n, seed)
    x[:, 3] = g + 0.3 * x[:, 1]
    return (x[:, :2], x[:, 2:]) if parts else x, y, g


CASES = [
    (lambda: net(1), False, INPUTS),
    (lambda: net(2), False, INPUTS),
    (lambda: Parts(net(1)), True, "inside.2"),
    (lambda: Parts(Scales()), True, LOGIT),
]


@pytest.mark.parametrize(
    ("model", "parts", "reads"), CASES, ids=["one", "two", "features", "logit"]
)
def test_a_head_takes_the_place_of_forms_that_break_the_promise(
    model: Any, parts: bool, reads: str
) -> None:
    given, held = (told(2000, seed, parts=parts) for seed in (1, 2))
    events: list[dict[str, Any]] = []
    found, metrics = trained(
        model(), given, held, **UNHELD, options={"log": events.append}
    )
    (merge,) = [event for event in events if event["event"] == "merge"]
    assert metrics["choice"] == "soup+head"
    assert merge["recheck"]["soup+head"] == []
    # The plain soup is refuted on one of the halves, or nothing had to be corrected.
    assert merge["scores"]["soup"]["refuted"] or merge["recheck"]["soup"]
    assert isinstance(found, Headed)
    assert found.head.reads == reads
    (gap,) = metrics["gaps"].values()
    assert gap["value"] < 0.1
    # The module that came back is the one that was measured.
    x, y, g = held
    with torch.no_grad():
        out = found(*x) if parts else found(x)
    logit = (
        out if out.dim() == 1 else out[:, -1] - (out[:, 0] if len(out[0]) > 1 else 0)
    )
    said = (logit >= 0).long()
    assert float((said == y).double().mean()) == metrics["final_accuracy"]
    rates = [float(said[g == code].double().mean()) for code in (0, 1)]
    assert abs(rates[0] - rates[1]) == pytest.approx(gap["value"])


def test_no_head_is_fitted_where_the_promise_is_kept_and_none_for_three_classes() -> (
    None
):
    data = [told(2000, seed, parts=False) for seed in (1, 2)]
    _, kept = trained(net(), *data, **{**UNHELD, "promises": {"max_bias": 1.0}})
    assert kept["choice"] == "soup"
    three = [rows(900, seed, 3) for seed in (1, 2)]
    _, metrics = trained(net(3), *three, **UNHELD)
    assert metrics["choice"] != "soup+head"


def test_a_head_travels_in_the_state_of_its_module(tmp_path: Any) -> None:
    data = [told(2000, seed, parts=False) for seed in (1, 2)]
    found, _ = trained(net(2), *data, **UNHELD)
    torch.save(found, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    x = data[1][0]
    assert torch.equal(found(x), again(x))
    assert {name.split(".")[0] for name in found.state_dict()} == {"member", "head"}
    # An attack descends through the head.
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(found(x).sum(), x)
    assert bool(slope.any())


@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 2)])
def test_a_head_computes_what_the_predictor_of_tables_computes(
    shape: tuple[int, ...],
) -> None:
    generator = np.random.default_rng(0)
    parts = []
    for condition in (True, False, None):
        weight, bias = generator.normal(size=(3, 2)), generator.normal(size=2)
        own = (weight, bias, generator.normal(size=2) / 9)
        parts.append(Part(condition, *(t.astype(np.float32) for t in own)))
    own = FairHead(tuple(parts))
    mean, deviation = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.5, 1.0, 4.0])
    mean, deviation = mean.double(), deviation.double()
    head = Head(own, mean, deviation, reads=INPUTS, dtype=torch.float64)
    seen = torch.from_numpy(generator.normal(size=(9, 3)))
    out = torch.zeros(shape, dtype=torch.float64)
    if len(shape) > 1:
        out[:, -1] = seen[:, 0]
    else:
        out = seen[:, 0].clone()
    moved = head(out, seen)
    assert moved.shape == shape
    logit = moved if len(shape) == 1 else moved[:, -1] - (moved[:, 0] * (shape[1] - 1))
    scores = own.correct(
        ((seen - mean) / deviation).numpy(), torch.sigmoid(seen[:, 0]).numpy()
    )
    expected = np.clip(scores, 1e-6, 1 - 1e-6)
    np.testing.assert_allclose(torch.sigmoid(logit).numpy(), expected, atol=1e-6)
    assert all(map(math.isfinite, moved.flatten().tolist()))


class Twice(nn.Module):
    """Uses its last layer twice, so that no row of it is an answer's."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 1)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.last(self.first(a)) + self.last(self.first(b))


def test_a_layer_that_is_used_twice_is_not_read() -> None:
    from safescale_ammt.modules.fair_head import what_to_read

    inputs = (torch.ones(2, 2), torch.ones(2, 2))
    assert what_to_read(Twice(), inputs) == LOGIT
    assert observed(Twice(), inputs, LOGIT)[1].shape == (2, 1)


def test_a_head_is_fitted_and_answers_on_another_device() -> None:
    data = [told(2000, seed, parts=False) for seed in (1, 2)]
    found = []
    for device in (torch.device("cpu"), far_device()):
        options = {"present": {"cuda": device}.get}
        found.append(trained(net(2), *data, **UNHELD, options=options))
    (here, one), (far, other) = found
    assert one["choice"] == other["choice"] == "soup+head"
    assert one["gaps"] == other["gaps"]
    for name, tensor in here.state_dict().items():
        assert torch.equal(tensor, far.state_dict()[name].cpu()), name
