"""Rows of a user's: of every kind, and no row is changed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from module_world import (
    GAP,
    Rows,
    X,
    Y,
    both,
    brief,
    net,
    rows,
    same,
    state,
    trained,
)
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset, TensorDataset

from safescale_ammt.errors import DataError
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer

pytestmark = pytest.mark.usefixtures("same_start")


class Listed(Dataset[Any]):
    """Rows of a map-style data set, with texts as groups."""

    def __init__(self, of: TensorDataset) -> None:
        self.of = of

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> Any:
        x, y, group = self.of[index]
        return x, int(y), "fm"[int(group)]


def test_rows_of_every_kind_train_the_same_model() -> None:
    given, held = both()
    expected, _ = trained(net(), given, held, promises=GAP)
    arrays = [tuple(t.numpy() for t in d.tensors) for d in (given, held)]
    arrays = [(x.astype(float), y.astype(float), g.astype(str)) for x, y, g in arrays]
    kinds = [
        tuple(tuple(d.tensors) for d in (given, held)),
        arrays,
        (Listed(given), Listed(held)),
        tuple(Subset(d, range(len(d))) for d in (given, held)),
        tuple(tuple(t.tolist() for t in d.tensors) for d in (given, held)),
    ]
    for data in kinds:
        found, _ = trained(net(), *data, promises=GAP)
        assert same(state(found), state(expected))


def test_groups_may_be_given_apart_by_name() -> None:
    (x, y, g), (vx, vy, vg) = (d.tensors for d in both())
    trainer = SAFESCALEAMMTTrainer(brief())
    _, metrics = trainer.train(
        net(), (x, y), (vx, vy), GAP,
        sensitive={"sex": g, "age": g * 0}, validation_sensitive={"sex": vg, "age": vg},
    )  # fmt: skip
    assert list(metrics["gaps"]) == ["max-bias-sex", "max-bias-age"]
    assert any("age" in reason for reason in metrics["left_out"])


def test_rows_of_a_data_set_may_name_their_groups() -> None:
    x, y, g = rows(64)
    named = Rows(lambda i: (x[i], y[i], {"sex": int(g[i]), "odd": i % 2}))
    _, metrics = trained(net(), named, named, promises=GAP)
    assert list(metrics["gaps"]) == ["max-bias-sex", "max-bias-odd"]
    for lacks in ({"sex": 1}, 1):
        other = Rows(lambda i, g=lacks: (x[i], y[i], {"odd": 1} if i else g))
        with pytest.raises(DataError, match="has groups of several names"):
            trained(net(), other, named)


class Putting(nn.Linear):
    """Does what has no deterministic form."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.put(torch.tensor([0]), torch.tensor([1.0])))


@pytest.mark.filterwarnings("ignore:put_ does not have")
def test_what_has_no_deterministic_form_trains_all_the_same() -> None:
    mode = torch.get_deterministic_debug_mode()
    _, metrics = trained(Putting(4, 1))
    assert metrics["steps"] == 30
    assert torch.get_deterministic_debug_mode() == mode


def test_without_groups_a_promise_on_them_is_undecided_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    given, held = (TensorDataset(*d.tensors[:2]) for d in both())
    _, metrics = trained(
        net(), given, held, promises={**GAP, "adversarial_budget": 0.1}
    )
    (reason,) = metrics["left_out"]
    assert reason.startswith("max-bias is undecided: no groups are given")
    assert [r.message for r in caplog.records].count(reason) == 1
    assert (metrics["needs_human"], metrics["may_be_released"]) == (True, False)
    assert metrics["robust"]["accuracy"] <= metrics["final_accuracy"]
    _, alone = trained(net(), given, held, promises=GAP, human_oversight_enabled=False)
    assert not alone["needs_human"]


class Augmented(Listed):
    """Rows that are seen through noise of torch's generator."""

    def __getitem__(self, index: int) -> Any:
        x, y, group = super().__getitem__(index)
        return x + 0.1 * torch.randn(4), y, group


def test_what_rows_draw_is_drawn_anew_and_of_the_seed() -> None:
    given, held = (Augmented(data) for data in both())
    before = torch.get_rng_state()
    first, one = trained(net(), given, held, promises=GAP)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again, other = trained(net(), given, held, promises=GAP)
    assert same(state(first), state(again))
    assert one["final_loss"] == other["final_loss"]
    assert not same(state(first), state(trained(net(), promises=GAP)[0]))


class Named(nn.Module):
    """Takes two inputs by name, one of them whole numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.of, self.last = nn.Embedding(2, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        return self.last(x + self.of(kind))


def test_inputs_may_have_names_and_whole_numbers() -> None:
    (x, y, g), (vx, vy, vg) = (d.tensors for d in both())
    _, metrics = trained(
        Named(), ({"x": x, "kind": g}, y), ({"x": vx, "kind": vg}, vy),
        promises={"adversarial_budget": 0.1}, steps=200, trunk_steps=60,
    )  # fmt: skip
    assert metrics["final_accuracy"] > 0.7
    assert "small ball" in metrics["robust"]["reason"]


def test_whole_numbers_with_a_point_are_codes_where_a_row_has_one() -> None:
    coded, _ = trained(net(2), (X, Y), (X, Y))
    floats, metrics = trained(net(2), (X, Y.float()), (X, Y.double()))
    assert metrics["task"] == "classification"
    assert same(state(coded), state(floats))


class Scaling(nn.Linear):
    """Writes on its input, as some layers do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.mul_(2))


def test_a_module_that_writes_on_its_input_is_attacked_and_changes_no_rows() -> None:
    before = X.clone()
    _, metrics = trained(
        Scaling(4, 1), (X, Y), (X, Y), promises={"adversarial_budget": 0.5}
    )
    assert metrics["robust"]["accuracy"] < metrics["final_accuracy"]
    assert torch.equal(X, before)


def test_arrays_of_every_layout_and_numbers_of_every_kind_are_read() -> None:
    def run(x: Any, y: Any) -> dict[str, Tensor]:
        return state(trained(net(), (x, y), (x, y))[0])

    expected, x = run(X, Y), X.numpy().copy()
    x.setflags(write=False)
    back = np.ascontiguousarray(x[:, ::-1])[:, ::-1]
    for other in (x, x.astype(">f4"), back, x.astype(np.longdouble)):
        assert same(run(other, Y), expected)
    for label in (Y.bfloat16(), Y.numpy().astype(">i8"), np.array([*Y], dtype=object)):
        assert same(run(X, label), expected)
    with pytest.raises(DataError, match="are no arrays"):
        run(np.ma.masked_greater(x, 0.5), Y)
    numbers, lone = X[:, 0].numpy(), np.array(X[:, 0].tolist(), dtype=object)
    assert same(run(X, lone), run(X, numbers))


def test_names_of_the_labels_are_told_in_the_order_of_their_codes() -> None:
    _, metrics = trained(net(), (X, ["no", "yes"] * 32), (X, ["no", "yes"] * 32))
    assert metrics["classes"] == ["no", "yes"]
    _, metrics = trained(net(2), (X, 9 + Y), (X, 9.0 + Y))
    assert metrics["classes"] == ["9", "10"]
