"""Learners of one table: what nets and boosted trees on a dataset have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from safescale_ammt.config.roles import ROLES, Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.config.unapplied import unapplied_to_tables
from safescale_ammt.constitution.table_threats import TableThreat
from safescale_ammt.data.coding import Coding
from safescale_ammt.model.device import CPU
from safescale_ammt.model.network import predicted, row_log_losses
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.training.changed_rows import changed_copies
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.fair_head import (
    FITTED_NUMBERS,
    FITTED_ROWS,
    HEAD_ROWS,
    fit,
)
from safescale_ammt.training.plan import POOL

if TYPE_CHECKING:
    from safescale_ammt.data.feature_codes import Numeric


class TableNets:
    """The part of `nets.Nets` that the dataset answers.

    Args:
        encoded: the dataset as tensors.
        encoding: of the rows.
    """

    sets_aside = True
    device = CPU
    pool: tuple[str, ...] = POOL

    def __init__(self, encoded: EncodedDataset, encoding: str) -> None:
        self.encoded, self._encoding = encoded, encoding
        schema = encoded.schema
        self.groups, self.classes, self.unit = (
            schema.groups,
            schema.classes,
            schema.unit,
        )
        self.outcomes, self.counts = encoded.outcomes, encoded.counts
        self.most_rows = encoded.limits.other

    def roles(self, config: TrainingConfig) -> tuple[Role, ...]:
        """Returns the section's roles; those for other data act as the generalist."""
        own = ROLES["generalist"]
        names = config.agent_specializations
        return tuple(ROLES.get(name, replace(own, name=name)) for name in names)

    def unapplied(self, config: TrainingConfig) -> Iterator[str]:
        """Yields what the section asks for and a table's learner does not do."""
        return unapplied_to_tables(config)

    def rows(self, *splits: str) -> EncodedRows:
        """Returns the rows of splits, one after the other."""
        return self.encoded.joined(splits, self._encoding)

    def changed(
        self, threats: Sequence[TableThreat], copies: int, seed: int
    ) -> tuple[EncodedRows | None, Tensor]:
        """Returns changed copies of the pool's rows, and the number of each one's row.

        Args:
            threats: what may be changed; copies take them in turn.
            copies: of each row that permits a change.
            seed: of the draws.
        """
        encoded, encoding = self.encoded, cast("Numeric", self._encoding)
        return changed_copies(
            (batch for split in self.pool for batch in encoded.batches(split)),
            encoded.schema,
            Coding(encoded.schema, encoding),
            threats,
            copies=copies,
            seed=seed,
        )

    def headed(
        self, model: Deployable, constraints: Constraints, targets: Tensor
    ) -> Deployable | None:
        """Returns a model with a fair head, None where there is nothing to correct."""
        if self.encoded.n_out > 1:
            return None
        # *select* is left out: a head that was fitted there would be judged on the
        # rows that it was made for.
        rows = self.rows(*HEAD_ROWS)
        rows = rows.part(min(FITTED_ROWS, FITTED_NUMBERS // rows.width))
        eta = torch.from_numpy(rows.answers(model).score)
        x = rows.batch(torch.arange(len(rows)))
        head = fit(constraints, rows, x, eta, targets)
        return None if head is None else replace(model, head=head)

    def row_losses(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns the log loss of each row (n,) from logits (n, n_out)."""
        return row_log_losses(logits, label)

    def worth(self, logits: Tensor, label: Tensor) -> Tensor:
        """Returns 1 for each right answer, else 0 (k, B)."""
        return (predicted(logits) == label).to(torch.float64)
