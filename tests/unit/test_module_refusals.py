"""What cannot be trained is one sentence, before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from module_world import (
    GAP,
    G,
    Rows,
    X,
    Y,
    both,
    brief,
    net,
    trained,
)
from torch import Tensor, nn
from torch.utils.data import IterableDataset

from safescale_ammt.config.roles import Role
from safescale_ammt.errors import DataError, InputError, SafescaleError
from safescale_ammt.modules.trainer import SAFESCALEAMMTTrainer

pytestmark = pytest.mark.usefixtures("same_start")


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(())


def fails(_index: object) -> Any:
    raise KeyError("somebody's name")


class Failing(nn.Linear):
    """Fails where a row begins with 9."""

    def forward(self, x: Tensor) -> Tensor:
        if (x[:, 0] == 9).any():
            raise KeyError("somebody's name")
        return super().forward(x)


NAN = torch.full((64,), float("nan"))
MIXED = np.array(["a", 1] * 32, dtype=object)
REFUSED = {
    "no rows": (net, (X[:0], Y[:0]), "has no rows"),
    "an iterable": (net, Endless(), "is an iterable data set"),
    "one tensor": (net, X, "is a Tensor, expected a torch Dataset"),
    "NaN targets": (
        net,
        (X, NAN),
        "has 64 targets that are missing or no finite number",
    ),
    "other lengths": (net, (X, Y[:9]), "has 64 inputs and 9 targets"),
    "short groups": (net, (X, Y, G[:9]), "the group 'group' has 9 values"),
    "NaN inputs": (net, (X * NAN[:, None], Y), "no finite numbers"),
    "wide inputs": (
        net,
        (X[:, :3], Y),
        "train_dataset, first rows: The model cannot be called on a batch",
    ),
    "texts": (lambda: net(3), (X, ["a", "b"] * 32), "3 numbers, which fits 3 classes"),
    "a map": (lambda: nn.Unflatten(1, (2, 2)), (X, Y), "no parameter to train"),
    "three axes": (
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2))),
        (X, Y),
        "answer to a batch is",
    ),
    "chances": (lambda: nn.Sequential(net(), nn.Sigmoid()), (X, Y), "with chances"),
    "halves": (lambda: net().half(), (X, Y), "torch.float16, expected float32"),
    "lazy": (lambda: nn.LazyLinear(1), (X, Y), "has no values yet"),
    "no module": (lambda: nn.Linear, (X, Y), "is the class Linear, which nobody has"),
    "texts as inputs": (net, (np.array([["a"]] * 64), Y), "are no arrays"),
    "ragged inputs": (net, ([[1], [1, 2]] * 32, Y), "are no arrays"),
    "one number": (net, (torch.tensor(1.0), Y), "are no arrays"),
    "sparse inputs": (net, (X.to_sparse(), Y), "are no arrays"),
    "missing labels": (net, (X, [None, "a"] * 32), "has 32 targets that are missing"),
    "mixed labels": (net, (X, MIXED), "some are texts and some are not"),
    "two labels a row": (
        lambda: net(2),
        (X, torch.eye(2).long()[Y]),
        "task='regression'",
    ),
    "rows of several shapes": (
        net,
        Rows(lambda i: (torch.ones(i % 3), 0)),
        "cannot be put into one batch",
    ),
    "targets of several shapes": (
        net,
        Rows(lambda i: (X[i], [0] * (1 + i % 2))),
        "targets of several shapes",
    ),
    "rows that fail": (net, Rows(fails), "cannot give its rows (KeyError"),
    "one and the same number": (net, (X, X[:, 0] * 0 + 5.5), "one and the same number"),
    "large numbers": (net, (X, X[:, 0].double() * 1e300), "too large for float32"),
    "groups of one": (net, (X, Y, X[:, 0]), "128 values in 128 rows"),
    "a batch of one": (
        lambda: net(1, nn.BatchNorm1d(8)),
        (X, Y, G),
        "cannot be called on a batch (ValueError",
    ),
    "one answer": (
        lambda: nn.Sequential(net(), nn.Flatten(0), nn.Linear(64, 1)),
        (X, Y),
        "answers 64 rows with 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_one_sentence(case: str) -> None:
    model, data, says = REFUSED[case]
    size = 1 if case == "a batch of one" else 32
    held = (X, Y, G + X[:, 0] / 9) if case == "groups of one" else (X, Y, G)
    alone = not isinstance(data, tuple) or len(data) < 3
    with pytest.raises(SafescaleError) as caught:
        trained(model(), data, held[:2] if alone else held, batch_size=size)
    assert says in str(caught.value)
    assert str(caught.value).endswith(".")
    assert "somebody" not in str(caught.value)


def test_what_has_no_answer_among_the_rows_for_validation_is_refused_first() -> None:
    wrong = X.clone()
    wrong[9] = NAN[:4]
    for held, says in (
        ((wrong, Y), "validation_dataset: .* to 1 of 64 rows are no finite numbers"),
        ((X[:, :3], Y), "validation_dataset: The model cannot be called on a batch"),
        (({"x": X}, Y), "validation_dataset: The model cannot be called on a batch"),
    ):
        with pytest.raises(SafescaleError, match=says):
            trained(net(), (X, Y), held, options={"log": forbidden})


def forbidden(event: Any) -> None:
    raise AssertionError(event)


def test_what_fails_later_is_one_sentence_with_its_cause() -> None:
    late = torch.cat([X, X, X])
    late[150, 0] = 9
    with pytest.raises(InputError, match="cannot be called on a batch") as caught:
        trained(Failing(4, 1), (late, Y.repeat(3)), (X, Y))
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    ("loss", "says"),
    [
        (nn.BCEWithLogitsLoss(), r"answer \(32, 2\) and a target \(32,\) \(ValueError"),
        (lambda out, y: 1 / 0, "ZeroDivisionError, shown above"),
        (lambda out, y: 1.0, "The loss is a float, expected a tensor"),
        (lambda out, y: torch.tensor(1.0), "does not depend on the model's weights"),
        ("mse", "loss is a str, expected a function"),
    ],
)
def test_a_loss_that_cannot_teach_is_one_sentence(loss: Any, says: str) -> None:
    with pytest.raises(SafescaleError, match=says):
        trained(net(2), options={"loss": loss})


def test_a_loss_that_no_weight_changes_and_lost_steps_are_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    trained(net(1), options={"loss": nn.CrossEntropyLoss()})
    said = [r.message for r in caplog.records if "No weight changes" in r.message]
    assert len(said) == 1
    given, held = both()
    given.tensors[0][100, 0] = float("nan")
    model, metrics = trained(net(), given, held)
    said = [r.message for r in caplog.records if "no finite number" in r.message]
    assert len(said) == 1
    assert "A gradient of step" in said[0]
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    assert metrics["final_loss"] < 0.7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"task": "regresion"}, "the nearest is 'regression'"),
        ({"roles": ["safety"]}, "roles holds a str, expected each to be a Role"),
    ],
)
def test_options_of_another_kind_are_one_sentence(options: Any, says: str) -> None:
    with pytest.raises(SafescaleError, match=says):
        SAFESCALEAMMTTrainer(brief(), **options)
    with pytest.raises(SafescaleError, match="config is a dict"):
        SAFESCALEAMMTTrainer({"num_agents": 2})  # type: ignore[arg-type]
    for wrong in ({"noise": -1.0}, {"noise": float("nan")}, {"input_drop": 1.5}):
        with pytest.raises(SafescaleError, match="Role 'one' has"):
            Role("one", "nothing", **wrong)


@pytest.mark.parametrize(
    ("names", "groups", "says"),
    [
        (["a", "b"], G, "has 1 columns of groups, but config.sensitive names 2"),
        (["a", "a"], torch.stack([G, G], 1), "a name of its own"),
        ([], {"a\nb": G}, "a name is text that is seen"),
        ([], {" ": G}, "a name is text that is seen"),
        ([], {"a": torch.stack([G, G], 1)}, "every row needs one value"),
        ([], "sex", "are one value; give one a row"),
    ],
)
def test_groups_that_are_not_named_one_by_one_are_refused(
    names: list[str], groups: Any, says: str
) -> None:
    trainer = SAFESCALEAMMTTrainer(brief(sensitive=names))
    with pytest.raises(DataError, match=says):
        trainer.train(
            net(), (X, Y), (X, Y), GAP, sensitive=groups, validation_sensitive=groups
        )


def test_a_loss_that_is_no_number_and_a_short_validation_are_refused() -> None:
    with pytest.raises(SafescaleError, match="loss of the first batch"):
        trained(net(), options={"loss": lambda out, y: (out - y).mean() / 0})
    with pytest.raises(DataError, match="has 7 rows; at least 8"):
        trained(net(), (X, Y), (X[:7], Y[:7]))
    with pytest.raises(DataError, match="give both the same"):
        trained(net(), (X, Y, G), (X, Y))
    with pytest.raises(InputError, match="Unknown key 'max_gap'"):
        trained(net(), promises={"max_gap": 0.1})
