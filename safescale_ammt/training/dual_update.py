"""The dual update: multipliers moved by hard rates on rows an agent has not seen.

Each agent holds out one fold of the rows and is measured there with its averaged
weights. The hits of all agents are pooled, which gives about k times the positives of
one split ("cross-fitting"), and they drive one set of multipliers, so that merging
agents cannot break what the multipliers achieved. Before its fold was set aside the
common trunk has seen every row once or more, without constraints.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.stateful import StateDict


class DualUpdate:
    """Measures the agents, moves the multipliers, says who may teach.

    Args:
        genome: of every net.
        constraints: what is enforced.
        rows: the rows that the folds are cut from.
        held_out: row numbers that each of the k agents sets aside.
        config: gains, slack and the confidence at which an agent stops teaching.
        placement: which agents this process measures; None is all.

    Attributes:
        targets: gap that each pair aims at (pairs,).
        cell_weights: weight of each cell in the Lagrangian (cells,).
        eligible: which agents may teach (k,).
    """

    def __init__(
        self,
        genome: Genome,
        constraints: Constraints,
        rows: EncodedRows,
        held_out: Sequence[Tensor],
        config: TrainingConfig,
        *,
        placement: Placement | None = None,
    ) -> None:
        self.placement = placement or Placement(len(held_out))
        self.constraints = constraints
        gains = constraints.gains()
        self.controller = NuPI(
            config.dual_ki * gains, config.dual_kp * gains, config.dual_nu
        )
        self.targets = torch.zeros(len(constraints.pairs))
        self.cell_weights = torch.zeros(len(constraints.cells))
        self.eligible = torch.ones(len(held_out), dtype=torch.bool)
        self._violating = torch.zeros(len(held_out), dtype=torch.bool)
        self._genome = genome
        self._slack = config.bias_tolerance
        self._outcomes = torch.tensor([c.outcome for c in constraints.cells])
        self._z = z_value(config.safety_threshold)
        self._tau = constraints.tau()

        # Held-out rows that count in a cell, side by side and padded, so that one
        # forward pass measures all agents. Sizes are kept of all agents, rows only
        # of those that this process holds.
        inside = constraints.membership(rows.groups, rows.y)
        in_a_cell = inside.any(0)
        folds = [fold[in_a_cell[fold]] for fold in held_out]
        longest = max((len(fold) for fold in folds), default=0)
        index = torch.zeros(len(folds), longest, dtype=torch.long)
        is_row = torch.zeros(len(folds), longest, dtype=torch.bool)
        for i, fold in enumerate(folds):
            index[i, : len(fold)] = fold
            is_row[i, : len(fold)] = True
        membership = inside[:, index].transpose(0, 1) & is_row[:, None]
        self._sizes = membership.sum(-1).to(torch.float32)
        local = list(self.placement.local_below(len(folds)))
        self._x, self._membership = rows.x[index[local]], membership[local]

    @classmethod
    def start(cls, plan: Plan, trunk: Weights, placement: Placement) -> DualUpdate:
        """Returns the state before the first update, targets set.

        Args:
            plan: of the run.
            trunk: the trunk's averaged weights (1, ...).
            placement: of agents and twin.
        """
        dual = cls(
            plan.genome,
            plan.constraints,
            plan.rows,
            plan.held_out,
            plan.config,
            placement=placement,
        )
        rows = plan.encoded.rows("constraint", plan.genome.encoding)
        dual.set_targets(plan.constitution, plan.encoded.counts, trunk, rows)
        return dual

    def set_targets(
        self,
        constitution: Constitution,
        counts: Counts,
        trunk: Weights,
        rows: EncodedRows,
    ) -> None:
        """Sets the targets from the trunk's rates on the *constraint* rows.

        Args:
            constitution: gives tau and alpha.
            counts: of the sealed split.
            trunk: its averaged weights (1, ...).
            rows: the constraint split.
        """
        inside = self.constraints.membership(rows.groups, rows.y)
        with torch.no_grad():
            out = forward(self._genome, trunk, rows.x[None]).mean(1)
        hits = hard_rates(predicted(out), inside, self._outcomes)[0]
        rates = hits / inside.sum(-1)
        aims = targets(
            self.constraints, constitution, counts, rates, self._sizes.sum(0)
        )
        # Slack loosens training alone, and never past the promise itself.
        self.targets = torch.minimum(aims + self._slack, self._tau)

    def update(self, averaged: Weights, finite: Tensor) -> dict[str, Any]:
        """Measures the agents' averaged weights and moves the multipliers.

        Args:
            averaged: weights of this process' nets, its agents first.
            finite: (k,) booleans of all; other agents are left out of the pool.

        Returns:
            For the log: `violation`, principle id -> pooled hard gap - tau, without
            those that are not defined;
            `multiplier`, principle id -> pair -> lambda; `teaches`, of each agent.
        """
        pooled, eligible = torch.zeros(0), finite
        if self.constraints.pairs:
            agents = len(self._x)
            # Hits per cell (agents, cells) of the local agents on their folds; none in
            # a process that holds the twin alone.
            local = torch.zeros(0, len(self._outcomes))
            if agents > 0:
                with torch.no_grad():
                    out = forward(
                        self._genome,
                        {name: weight[:agents] for name, weight in averaged.items()},
                        self._x,
                        one_of_several=self.placement.one_of_several(len(self._sizes)),
                    ).mean(1)
                local = hard_rates(predicted(out), self._membership, self._outcomes)
            hits = self.placement.gather(local, len(finite))
            # 0 / 0 is NaN: a cell that no row was set aside of moves and marks nothing.
            pooled = hits[finite].sum(0) / self._sizes[finite].sum(0)
            self.controller.step(self.constraints.differences(pooled) - self.targets)
            self._mark_violating(hits / self._sizes)
            eligible = finite & ~self._violating
        weights = self.constraints.weights(self.controller.multipliers)
        # A comparison turns one bit of difference between two kinds of processors
        # into another decision, so every process takes rank 0's.
        self.placement.broadcast(weights, eligible)
        self.cell_weights, self.eligible = weights, eligible
        tau = self.constraints.thresholds
        gaps = self.constraints.gaps(pooled)
        return {
            "violation": {name: gap - tau[name] for name, gap in gaps.items()},
            "multiplier": self.constraints.by_pair(self.controller.multipliers),
            "teaches": eligible.tolist(),
        }

    def _mark_violating(self, rates: Tensor) -> None:
        """Marks an agent whose violation is sure, and clears one without any.

        Between the two lines an agent keeps its mark (hysteresis): a point test
        on a hundred positives would mark agents at random.
        """
        excess = self.constraints.differences(rates) - self._tau
        errors = self.constraints.standard_errors(rates, self._sizes)
        surely = (excess - self._z * errors > 0).any(1)
        clear = ((excess <= 0) | excess.isnan()).all(1)
        self._violating = surely | (self._violating & ~clear)

    def state_dict(self) -> StateDict:
        """Returns targets, controller, marks and the last decision."""
        own = {"targets": self.targets, "violating": self._violating}
        own |= {"cell_weights": self.cell_weights, "eligible": self.eligible}
        return StateDict(common=own | self.controller.tensors())

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        tensors = dict(state.common)
        self.targets, self._violating = (
            tensors.pop("targets"),
            tensors.pop("violating"),
        )
        self.cell_weights, self.eligible = (
            tensors.pop("cell_weights"),
            tensors.pop("eligible"),
        )
        self.controller.load_tensors(**tensors)
