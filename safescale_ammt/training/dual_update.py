"""The referee: hard rates on rows that an agent has not trained on.

Each agent holds out one fold of the rows and is measured there with its averaged
weights. The referee pools the hits of all agents, about k times the positives of
one split ("cross-fitting"), and drives one set of multipliers with them, so that
merging agents cannot break what the multipliers achieved. Before its fold was set
aside the common trunk has seen every row once or more, without constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.counts import Counts
from safescale_ammt.model.genome import Genome
from safescale_ammt.model.network import Weights, forward, predicted
from safescale_ammt.training.constraints import Constraints, hard_rates, z_value
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.multipliers import NuPI, targets
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.stateful import StateDict


@dataclass(frozen=True)
class DualReport:
    """What the referee found in one round.

    Attributes:
        violations: principle id -> pooled hard gap of all finite agents - tau.
        multipliers: principle id -> pair -> lambda.
        cell_weights: weight of each cell in the Lagrangian (cells,).
        teaches: (k,) booleans, which agents may teach.
    """

    violations: dict[str, float]
    multipliers: dict[str, dict[str, float]]
    cell_weights: Tensor
    teaches: Tensor

    def to_dict(self) -> dict[str, Any]:
        """Returns the part that belongs in the log."""
        return {
            "violation": self.violations,
            "multiplier": self.multipliers,
            "teaches": self.teaches.tolist(),
        }


class DualUpdate:
    """Measures the agents, moves the multipliers, says who may teach."""

    def __init__(
        self,
        genome: Genome,
        constraints: Constraints,
        rows: EncodedRows,
        held: Sequence[Tensor],
        config: TrainingConfig,
        *,
        placement: Placement | None = None,
    ) -> None:
        self.placement = placement or Placement(len(held))
        self.constraints = constraints
        gains = constraints.gains()
        self.controller = NuPI(
            config.dual_ki * gains, config.dual_kp * gains, config.dual_nu
        )
        self.targets = torch.zeros(len(constraints.pairs))
        self._genome = genome
        self._slack = config.bias_tolerance
        self._outcomes = torch.tensor([c.outcome for c in constraints.cells])
        self._z = z_value(config.safety_threshold)
        self._barred = torch.zeros(len(held), dtype=torch.bool)
        self._tau = constraints.tau()
        self.cell_weights = torch.zeros(len(constraints.cells))
        self.teaches = torch.ones(len(held), dtype=torch.bool)
        self._gather(rows, held)

    def _gather(self, rows: EncodedRows, held: Sequence[Tensor]) -> None:
        """Lays the held-out rows that count in a cell side by side, padded.

        Sizes are of all agents, rows of this process' agents alone.
        """
        inside = self.constraints.membership(rows.groups, rows.y)
        counted = inside.any(0)
        held = [h[counted[h]] for h in held]
        longest = max((len(h) for h in held), default=0)
        index = torch.zeros(len(held), longest, dtype=torch.long)
        real = torch.zeros(len(held), longest, dtype=torch.bool)
        for i, chosen in enumerate(held):
            index[i, : len(chosen)] = chosen
            real[i, : len(chosen)] = True
        membership = inside[:, index].transpose(0, 1) & real[:, None]
        self._sizes = membership.sum(-1).to(torch.float32)
        mine = list(self.placement.below(len(held)))
        self._x, self._membership = rows.x[index[mine]], membership[mine]

    def aim(
        self,
        constitution: Constitution,
        counts: Counts,
        start: Weights,
        rows: EncodedRows,
    ) -> None:
        """Sets the targets from the trunk's rates on the *constraint* rows.

        Args:
            constitution: gives tau and alpha.
            counts: of the sealed split.
            start: the trunk's averaged weights (1, ...).
            rows: the constraint split.
        """
        inside = self.constraints.membership(rows.groups, rows.y)
        with torch.no_grad():
            out = forward(self._genome, start, rows.x[None]).mean(1)
        hits = hard_rates(predicted(out), inside, self._outcomes)[0]
        rates = hits / inside.sum(-1).clamp(min=1)
        aims = targets(
            self.constraints, constitution, counts, rates, self._sizes.sum(0)
        )
        self.targets = torch.minimum(aims + self._slack, self._tau)

    def update(self, averaged: Weights, finite: Tensor) -> DualReport:
        """Measures the agents' averaged weights and moves the multipliers.

        Args:
            averaged: weights of this process' agents.
            finite: (k,) booleans of all; other agents are left out of the pool.
        """
        if not self.constraints.pairs:
            return self._report(torch.zeros(0), finite)
        hits = self.placement.gather(self._hits(averaged), upto=len(finite))
        pooled = hits[finite].sum(0) / self._sizes[finite].sum(0).clamp(min=1)
        self.controller.step(self.constraints.differences(pooled) - self.targets)
        self._judge_teachers(hits / self._sizes.clamp(min=1))
        return self._report(pooled, finite & ~self._barred)

    def _hits(self, averaged: Weights) -> Tensor:
        """Returns the hits per cell of this process' agents on their own folds."""
        if not len(self._x):
            return torch.zeros(0, len(self._outcomes))
        lone = self.placement.lone(len(self._sizes))
        with torch.no_grad():
            out = forward(self._genome, averaged, self._x, lone=lone).mean(1)
        return hard_rates(predicted(out), self._membership, self._outcomes)

    def _report(self, pooled: Tensor, teaches: Tensor) -> DualReport:
        tau = self.constraints.thresholds
        gaps = self.constraints.gaps(pooled)
        weights = self.constraints.weights(self.controller.multipliers)
        self.placement.agree(weights, teaches)
        self.cell_weights, self.teaches = weights, teaches
        return DualReport(
            {name: gap - tau[name] for name, gap in gaps.items()},
            self.multipliers(),
            weights,
            teaches,
        )

    def state_dict(self) -> StateDict:
        """Returns targets, controller, who is barred and the last ruling."""
        found = {"targets": self.targets, "barred": self._barred}
        found |= {"cell_weights": self.cell_weights, "teaches": self.teaches}
        return StateDict(common=found | self.controller.tensors())

    def load_state_dict(self, state: StateDict) -> None:
        """Goes on from there."""
        found = dict(state.common)
        self.targets, self._barred = found.pop("targets"), found.pop("barred")
        self.cell_weights, self.teaches = (
            found.pop("cell_weights"),
            found.pop("teaches"),
        )
        self.controller.load_state_dict(**found)

    def _judge_teachers(self, rates: Tensor) -> None:
        """Bars an agent whose violation is sure, readmits one without any.

        Between the two lines an agent keeps its status (hysteresis): a point test
        on a hundred positives would bar agents at random.
        """
        excess = self.constraints.differences(rates) - self._tau
        errors = self.constraints.standard_errors(rates, self._sizes)
        surely = (excess - self._z * errors > 0).any(1)
        clear = (excess <= 0).all(1)
        self._barred = surely | (self._barred & ~clear)

    def multipliers(self) -> dict[str, dict[str, float]]:
        """Returns lambda by principle and pair, for the log."""
        found: dict[str, dict[str, float]] = {}
        values = self.controller.multipliers.tolist()
        for pair, value in zip(self.constraints.pairs, values, strict=True):
            found.setdefault(pair.principle, {})[pair.name] = value
        return found
