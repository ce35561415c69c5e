"""The plan of a training run: everything that is decided before the first step."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.errors import DataError
from safescale_ammt.model.genome import Genome
from safescale_ammt.training.constraints import Constraints, enforce
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.roles import Role, assign
from safescale_ammt.training.sampling import RowOrder, row_weights, stratified_folds

POOL = ("train", "constraint")
"""Splits whose rows the agents train on, fold by fold."""
LEAST_FOLDS = 4
"""Fewer agents than this still keep three quarters of the rows each."""


@dataclass(frozen=True)
class Plan:
    """Roles, data views and schedule.

    Attributes:
        problem: the dataset as tensors.
        genome: architecture of every net.
        config: the training section.
        rows: the rows of `POOL`.
        constraints: what is enforced on them.
        roles: of the k agents.
        held: rows that each agent sets aside.
        seen: rows that each agent trains on; the last view is all rows.
        strata: label x group columns of the constitution, per row (n,).
        trunk_steps: steps before the agents part.
        steps: steps of each net in all.
    """

    encoded: EncodedDataset
    genome: Genome
    config: TrainingConfig
    rows: EncodedRows
    constraints: Constraints
    roles: tuple[Role, ...]
    held: tuple[Tensor, ...]
    seen: tuple[Tensor, ...]
    strata: Tensor
    trunk_steps: int
    steps: int

    @property
    def batch(self) -> int:
        """Rows per step: no more than the smallest view has."""
        return min(self.config.batch_size, *(len(rows) for rows in self.seen))

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, then half a cosine down to 0."""
        warm = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        cosine = (1 + math.cos(math.pi * step / self.steps)) / 2
        return self.config.learning_rate * warm * cosine

    def seed(self, use: str) -> int:
        """Derives an independent seed below 2^62 for one use of randomness."""
        digest = hashlib.sha256(f"{self.config.seed}/{use}".encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 2

    def order(self, view: int, role: Role, use: str) -> RowOrder:
        """Returns the order in which a net sees the rows of a view."""
        rows = self.seen[view]
        return RowOrder(rows, row_weights(role, self.strata[rows]), self.seed(use))


def make_plan(
    encoded: EncodedDataset,
    genome: Genome,
    config: TrainingConfig,
    constitution: Constitution,
) -> Plan:
    """Deals out roles and folds.

    Raises:
        ConfigError: an unknown role.
        DataError: too few rows for the folds.
    """
    rows = encoded.joined(POOL, genome.encoding)
    roles = assign(config.agent_specializations, config.num_agents)
    strata = _strata(rows, constitution)
    folds = min(config.folds, max(LEAST_FOLDS, len(roles)))
    if len(rows) < 2 * folds:
        raise DataError(
            f"The splits {' and '.join(POOL)} hold {len(rows)} rows, too few for "
            f"{folds} folds; give more rows or fewer training.folds."
        )
    constraints = enforce(
        constitution, encoded.schema.groups, rows.groups, rows.y, encoded.outcomes
    )
    plan = Plan(encoded, genome, config, rows, constraints, roles, (), (), strata, 0, 0)
    fold = stratified_folds(strata, folds, plan.seed("folds"))
    aside = [fold == i % folds for i in range(len(roles))]
    views = [~mine for mine in aside] + [torch.ones_like(fold, dtype=torch.bool)]
    trunk_steps, steps = _schedule(config, len(rows))
    return replace(
        plan,
        held=tuple(mine.nonzero()[:, 0] for mine in aside),
        seen=tuple(view.nonzero()[:, 0] for view in views),
        trunk_steps=trunk_steps,
        steps=steps,
    )


def _strata(rows: EncodedRows, constitution: Constitution) -> Tensor:
    """Numbers the strata that occur: label x the constitution's group columns."""
    code = rows.y
    for name in constitution.group_columns:
        codes = rows.groups[name]
        code = code * (int(codes.max()) + 1) + codes
    strata: Tensor = torch.unique(code, return_inverse=True)[1]
    return strata


def _schedule(config: TrainingConfig, rows: int) -> tuple[int, int]:
    """Returns (trunk steps, steps): `max_epochs` bounds the passes over the rows."""
    if not config.max_epochs:
        return config.trunk_steps, config.steps
    per_epoch = math.ceil(rows / config.batch_size)
    steps = min(config.steps, config.max_epochs * per_epoch)
    return round(config.trunk_steps * steps / config.steps), steps
