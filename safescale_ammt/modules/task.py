"""Task: what a module is to learn of the rows, found out from both.

A module answers rows with logits, one of two classes or one for each class, or with
numbers. Which it is says the shape of its answer together with the targets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import DataError
from safescale_ammt.modules.rows import GivenRows, ModuleRows
from safescale_ammt.training.folds import strata_of, stratified_folds
from safescale_ammt.training.seeds import derived_seed

Kind = Literal["auto", "classification", "regression"]
_FEW = 8
"""Values that a group may have however few rows there are."""
HELD = ("validation", "monitor", "select", "select")
"""Splits that the rows for validation are dealt into, in turn."""


@dataclass(frozen=True)
class Task:
    """What is learnt.

    Attributes:
        classes: names by code; none where numbers are predicted.
        n_out: columns of an answer.
        groups: group name -> its values in code order.
        splits: name -> rows; those of `HELD` are parts of the validation rows.
        spread: variance of the numbers (n_out,), by which R2 measures.
    """

    classes: tuple[str, ...]
    n_out: int
    groups: Mapping[str, tuple[str, ...]]
    splits: Mapping[str, ModuleRows] = field(default_factory=dict)
    spread: Tensor = field(default_factory=lambda: torch.ones(1))

    @property
    def predicts_numbers(self) -> bool:
        """Whether it is a regression."""
        return not self.classes

    def table(
        self, split: str, name: str
    ) -> tuple[tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
        """Returns values, rows (g,) and rows per class (g, C) of a group column.

        The rows that a model is judged on here, `sealed` to training, are those for
        validation: all that there are.
        """
        del split
        rows, values = self.splits["held"], self.groups[name]
        # Numbers are of one class, as far as rows are counted.
        y = np.zeros(len(rows), np.int64) if self.predicts_numbers else rows.y.numpy()
        labels = np.zeros((len(values), len(self.classes) or 1), dtype=np.int64)
        np.add.at(labels, (rows.groups[name].numpy(), y), 1)
        return values, labels.sum(1), labels

    def crossed(
        self, split: str, name: str, given: str
    ) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.int64], NDArray[np.int64]]:
        """Returns the values of two columns, rows (g, s) and per class (g, s, C)."""
        del split
        rows, values, strata = (
            self.splits["held"],
            self.groups[name],
            self.groups[given],
        )
        shape = len(values), len(strata), len(self.classes)
        labels = np.zeros(shape, dtype=np.int64)
        codes = (rows.groups[name].numpy(), rows.groups[given].numpy(), rows.y.numpy())
        np.add.at(labels, codes, 1)
        return values, strata, labels.sum(2), labels

    def total(self, split: str) -> int:
        """Returns the rows that a model is judged on here."""
        del split
        return len(self.splits["held"])


def find_task(given: GivenRows, held: GivenRows, n_out: int, kind: Kind) -> Task:
    """Finds classes and groups.

    Args:
        given: the rows for training.
        held: the rows for validation.
        n_out: columns of the module's answer.
        kind: what the user says that it is.

    Raises:
        DataError: targets that the module's answers do not fit.
    """
    targets = np.concatenate([given.target.ravel(), held.target.ravel()])
    values = np.unique(targets)
    is_label = values.dtype.kind in "biuUSO" or (
        n_out == 1 and len(values) == 2 and set(values.tolist()) <= {0.0, 1.0}
    )
    if (
        n_out > 1
        and values.dtype.kind == "f"
        and len(targets) == len(given) + len(held)
    ):
        # One number a row is no target of several answers, but may be a code.
        is_label = bool((values == values.round()).all())
    fits = len(values) <= 2 if n_out == 1 else True
    if kind == "regression" or (kind == "auto" and not (is_label and fits)):
        if values.dtype.kind not in "biuf":
            raise unfit(n_out, f"{len(values)} values that are no numbers")
        return Task((), n_out, group_values(given, held))
    own = [spelled(v) for v in values.tolist()]
    whole = values.dtype.kind in "biu" or (
        values.dtype.kind == "f" and bool((values == values.round()).all())
    )
    codes = whole and n_out > 1 and len(own) <= n_out
    if codes and int(values.min()) >= 0 and int(values.max()) < n_out:
        # Classes that no row has are classes all the same.
        own = [str(i) for i in range(n_out)]
    if len(own) != max(2, n_out):
        raise unfit(n_out, f"{len(own)} classes")
    return Task(tuple(own), n_out, group_values(given, held))


def unfit(n_out: int, found: str) -> DataError:
    """Returns the error that answers and targets do not fit."""
    wanted = "2 classes, or numbers" if n_out == 1 else f"{n_out} classes, or numbers"
    return DataError(
        f"The model answers a row with {n_out} "
        f"{'number' if n_out == 1 else 'numbers'}, which fits {wanted}, but the "
        f"targets have {found}."
    )


def group_values(given: GivenRows, held: GivenRows) -> dict[str, tuple[str, ...]]:
    """Returns the values of each group, in both sets of rows.

    Raises:
        DataError: only one of the two has the groups, or most values are one row's.
    """
    if given.groups.keys() != held.groups.keys():
        raise DataError(
            f"Rows for training have the groups {sorted(given.groups)}, those for "
            f"validation {sorted(held.groups)}; give both the same."
        )
    found = {}
    for name, values in given.groups.items():
        both = [*values.tolist(), *held.groups[name].tolist()]
        found[name] = tuple(sorted({spelled(value) for value in both}))
        # Its values would be told, row by row, as what is too small to be judged.
        if len(found[name]) > max(_FEW, len(both) // 2):
            raise DataError(
                f"The group {name!r} has {len(found[name])} values in {len(both)} "
                "rows, so that most are of one row alone; give it in bands."
            )
    return found


def coded(given: GivenRows, task: Task) -> ModuleRows:
    """Returns rows with targets and groups as codes.

    Raises:
        DataError: targets of another shape than the module's answers.
    """
    if task.predicts_numbers:
        with np.errstate(over="ignore"):
            numbers = given.target.astype(np.float32)
        if not np.isfinite(numbers).all():
            raise DataError("Some targets are too large for float32; scale them.")
        y = torch.from_numpy(numbers).reshape(len(given), -1)
        if y.shape[1] != task.n_out:
            raise unfit(task.n_out, f"{y.shape[1]} numbers a row")
    else:
        if given.target.size != len(given):
            raise unfit(
                task.n_out,
                f"{given.target.size // len(given)} labels a row, which "
                "task='regression' alone takes",
            )
        y = codes_of(given.target.ravel(), task.classes)
    groups = {n: codes_of(given.groups[n], v) for n, v in task.groups.items()}
    return ModuleRows(given.inputs, torch.arange(len(given)), y, groups)


def codes_of(values: np.ndarray, names: tuple[str, ...]) -> Tensor:
    """Returns the codes of values among names (n,); -1 is one that has no name."""
    code = {name: i for i, name in enumerate(names)}
    found = [code.get(spelled(value), -1) for value in values.tolist()]
    return torch.tensor(found, dtype=torch.long)


def spelled(value: Any) -> str:
    """Spells a class or a group: 1, 1.0 and True are one value."""
    whole = isinstance(value, float) and value.is_integer()
    return str(int(value)) if whole or isinstance(value, bool) else str(value)


def with_splits(
    task: Task,
    given: GivenRows,
    held: GivenRows,
    config: TrainingConfig,
    constitution: Constitution,
) -> Task:
    """Deals the rows out: those for training as they are, the others into `HELD`.

    Raises:
        DataError: numbers to predict that do not vary, or of another shape.
    """
    train, judged = coded(given, task), coded(held, task)
    strata = strata_of(judged, constitution)
    fold = stratified_folds(strata, len(HELD), derived_seed(config.seed, "held"))
    splits = {"train": train.where(torch.arange(len(train))), "held": judged}
    for name in dict.fromkeys(HELD):
        at = [i for i, each in enumerate(HELD) if each == name]
        splits[name] = judged.where(torch.isin(fold, torch.tensor(at)))
    if task.predicts_numbers and bool((train.y.amax(0) == train.y.amin(0)).any()):
        raise DataError(
            "train_dataset has one and the same number as every target, or in a column "
            "of them; R2 is measured by how they vary: leave it out."
        )
    spread = train.y.var(0, correction=0) if task.predicts_numbers else torch.ones(1)
    return Task(task.classes, task.n_out, task.groups, splits, spread.clamp(min=1e-12))
