"""Nets: what a training is of, nets of one kind on one dataset.

Planning, the dual update and merging ask no more than `Nets` of what is trained, and
the loop that steps them asks for a learner too (`SteppedNets`). Nets of one genome
answer in `genome_nets`, any `torch.nn.Module` in the room `modules`; boosted trees,
which have a loop of their own, in the room `trees`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

import torch
from numpy.typing import NDArray
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.model.predictor import Prediction
from safescale_ammt.training.constraints import Cell, Constraints
from safescale_ammt.training.learner import Learner


class Rows(Protocol):
    """Rows as training sees them; inputs are what the nets make of their numbers."""

    @property
    def y(self) -> Tensor:
        """Class codes (n,), or numbers to predict."""

    @property
    def groups(self) -> Mapping[str, Tensor]:
        """Group name -> codes (n,), of any type of whole numbers."""

    @property
    def entity(self) -> Tensor | None:
        """Number (n,) of each row's entity, from 0; None if there are none."""

    def __len__(self) -> int:
        """How many."""

    def blocks(self, nets: int = 1) -> Iterator[Tensor]:
        """Yields the numbers of all rows, as many at a time as so many nets take."""

    def where(self, index: Tensor) -> Self:
        """Returns the rows of a mask or of row numbers."""

    def part(self, most: int, seed: int = 0) -> Self:
        """Returns at most so many rows, drawn by the seed, in their order."""

    def answers(self, model: Any) -> Prediction:
        """Returns what a form says of all rows."""


class SplitTables(Protocol):
    """How many rows of each group and class the splits have."""

    def table(
        self, split: str, name: str
    ) -> tuple[tuple[str, ...], NDArray[Any], NDArray[Any]]:
        """Returns values, rows (g,) and rows per class (g, C) of a group column."""

    def crossed(
        self, split: str, name: str, given: str
    ) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[Any], NDArray[Any]]:
        """Returns the values of two columns, rows (g, s) and per class (g, s, C)."""

    def total(self, split: str) -> int:
        """Returns the rows of a split."""


class ModelForm(Protocol):
    """A form of a model: nets that answer as one, deciding at a threshold."""

    @property
    def members(self) -> int:
        """Nets whose logits are averaged."""

    @property
    def positive(self) -> int | None:
        """Code of the positive class, or None."""

    @property
    def threshold(self) -> float:
        """Least score that is answered positive, of two classes."""

    def at(self, threshold: float) -> Self:
        """Returns the same form, deciding at another threshold."""


class Nets(Protocol):
    """Nets of one kind on one dataset; `rows` below are always its own."""

    @property
    def groups(self) -> Mapping[str, tuple[str, ...]]:
        """Group name -> its values in code order."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes by code; none where numbers are predicted."""

    @property
    def outcomes(self) -> tuple[int, ...]:
        """Classes whose rates are compared: the positive one, else all."""

    @property
    def unit(self) -> str:
        """What is drawn, in words: rows, or entities."""

    @property
    def counts(self) -> SplitTables:
        """Of the rows that the model will be judged on, as split `sealed`."""

    @property
    def pool(self) -> tuple[str, ...]:
        """Splits whose rows the agents train on, fold by fold."""

    @property
    def sets_aside(self) -> bool:
        """Whether agents set a fold aside where no promise needs it, too."""

    @property
    def most_rows(self) -> int:
        """Most rows that figures are taken of."""

    @property
    def device(self) -> torch.device:
        """Where they are computed; what they answer lies with the processor."""

    def roles(self, config: TrainingConfig) -> tuple[Role, ...]:
        """Returns the roles that the section's specialisations mean for these nets."""

    def unapplied(self, config: TrainingConfig) -> Iterator[str]:
        """Yields what the section asks for and these nets do not do."""

    def rows(self, *splits: str) -> Rows:
        """Returns the rows of splits, one after the other."""

    def logits(
        self, theta: Tensor, rows: Any, index: Tensor, *, one_of_several: bool = False
    ) -> Tensor:
        """Returns what nets answer, not training.

        Args:
            theta: their weights (k, P).
            rows: that the numbers are of.
            index: row numbers (k, B), or (1, B) shared by all.
            one_of_several: the one net here is one of several, and other processes
                compute the rest.

        Returns:
            Logits, or predicted numbers (k, B, n_out).
        """

    def worth(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns what each answer is worth (k, B), on average the accuracy."""

    def row_losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns the task loss of each row (n,) from logits (n, n_out)."""

    def deployable(self, theta: Tensor, form: str) -> ModelForm:
        """Makes rows of weights (members, P) one deployable model."""

    def headed(
        self, model: Any, constraints: Constraints, targets: Tensor
    ) -> ModelForm | None:
        """Returns a form with a fair head, None where there is nothing to correct."""


@runtime_checkable
class SteppedNets(Nets, Protocol):
    """Nets that take optimizer steps together."""

    def learner(
        self, rows: Any, cells: Sequence[Cell], config: TrainingConfig
    ) -> Learner:
        """Returns the one net that the trunk trains."""

    def student(
        self, trained: Any, constitution: Constitution, *, soft: float
    ) -> Tensor:
        """Returns a net (1, P) that has learnt on from the soup of trained agents.

        Args:
            trained: the agents, and what they were trained under.
            constitution: the promises.
            soft: share of the agents' word in what it learns, beside the labels.
        """


@runtime_checkable
class AttackedNets(SteppedNets, Protocol):
    """Nets whose inputs can be attacked; promises for others are refused when read."""

    def under_attack(
        self, theta: Tensor, rows: Any, index: Tensor, threat: Threat
    ) -> Tensor:
        """Returns what nets answer to attacked rows, as `logits` does to the rows."""


def asked(
    nets: Nets,
    theta: Tensor,
    rows: Any,
    index: Tensor,
    threat: Threat | None,
    *,
    one_of_several: bool = False,
) -> Tensor:
    """Returns what nets answer (`Nets.logits`), to rows under attack if there is one.

    Args:
        nets: that are asked.
        theta: their weights (k, P).
        rows: that the numbers are of.
        index: row numbers (k, B), or (1, B) shared by all.
        threat: what an attacker changes of the rows.
        one_of_several: as in `Nets.logits`.
    """
    if threat is None:
        return nets.logits(theta, rows, index, one_of_several=one_of_several)
    assert isinstance(nets, AttackedNets)
    return nets.under_attack(theta, rows, index, threat)
