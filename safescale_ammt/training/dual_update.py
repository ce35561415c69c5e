"""The dual update: multipliers moved by hard rates on rows an agent has not seen.

Each agent holds out one fold of the rows and is measured there with its averaged
weights. The hits of all agents are pooled, which gives about k times the positives of
one split ("cross-fitting"), and they drive one set of multipliers. Where roles differ,
what the agents' mean differs by from them is added (`merge_shift`), so that merging
agents cannot break what the multipliers achieved. Before its fold was set aside the
common trunk has seen every row once or more, without constraints.

Cells under a threat are measured on rows that the averaged weights are attacked at: a
part of each fold, as an attack takes many passes (`ATTACKED`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.model.network import predicted
from safescale_ammt.training.architectures import dealt
from safescale_ammt.training.constraints import (
    ATTACKED,
    Constraints,
    cell_sums,
    z_value,
)
from safescale_ammt.training.encoded import CHUNK_ROWS
from safescale_ammt.training.merge_shift import MergeShift, differ
from safescale_ammt.training.multipliers import NuPI, targets
from safescale_ammt.training.nets import Nets, Rows, asked
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.seeds import derived_seed
from safescale_ammt.training.stateful import StateDict

SHOWN = 1 << 12
"""Most rows that agents and their mean answer at an update: a tenth of its steps."""
MEASURED = 1 << 18
"""Most rows that one update measures: the pooled rate of one of eight cells is then
within .003, two times in three, and the margin of the targets allows for it."""
AT_ONCE = 5
"""Updates that the multiplier of a pair that is shown to be broken makes at once."""


class DualUpdate:
    """Measures the agents, moves the multipliers, says who may teach.

    Args:
        nets: what is trained.
        constraints: what is enforced.
        rows: the rows that the folds are cut from.
        held_out: row numbers that each of the k agents sets aside.
        config: gains, slack and the confidence at which an agent stops teaching.
        placement: which agents this process measures; None is all.
        merge_shift: measures the agents' mean; None where they are alike.

    Attributes:
        targets: gap that each pair aims at (pairs,).
        pooled: difference of each pair at the last update, on the held-out rows.
        shift: what the agents' mean differs by from those (pairs,).
        unseen: what fresh rows exceed both by (pairs,); 0 until an alarm.
        cell_weights: weight of each cell in the Lagrangian (cells,).
        eligible: which agents may teach (k,).
    """

    def __init__(
        self,
        nets: Nets,
        constraints: Constraints,
        rows: Rows,
        held_out: Sequence[Tensor],
        config: TrainingConfig,
        *,
        placement: Placement | None = None,
        merge_shift: MergeShift | None = None,
    ) -> None:
        self.placement = placement or Placement(len(held_out))
        self.constraints = constraints
        gains = constraints.gains()
        self.controller = NuPI(
            config.dual_ki * gains, config.dual_kp * gains, config.dual_nu
        )
        self.targets, self.pooled, self.shift, self.unseen = (
            torch.zeros(len(constraints.pairs)) for _ in range(4)
        )
        self.merge_shift = merge_shift
        self.cell_weights = torch.zeros(len(constraints.cells))
        self.eligible = torch.ones(len(held_out), dtype=torch.bool)
        self._violating = torch.zeros(len(held_out), dtype=torch.bool)
        self._nets = nets
        self._slack = config.bias_tolerance
        self._z = z_value(config.safety_threshold)
        self._tau = constraints.tau()

        # Held-out rows that count in a cell, side by side and padded, so that one
        # forward pass measures all agents. Sizes are kept of all agents, rows only
        # of those that this process holds; rows under a threat stand by themselves.
        inside = constraints.membership(rows.groups, rows.y)
        seed = derived_seed(config.seed, "measured")
        local = list(self.placement.local_below(len(held_out)))
        self._rows, self._sizes = rows, torch.zeros(len(held_out), len(inside))
        self._looks: list[tuple[Threat | None, Tensor, Tensor]] = []
        for threat in (None, *constraints.threats):
            cells = constraints.under(threat)
            most = None if threat is None else ATTACKED
            parts = measured(inside[cells], held_out, seed, most)
            longest = max((part.shape[1] for part, _ in parts), default=0)
            membership = torch.zeros(len(parts), len(inside), longest, dtype=torch.bool)
            index = torch.zeros(len(parts), longest, dtype=torch.long)
            for i, (part, numbers) in enumerate(parts):
                membership[i, cells, : len(numbers)] = part
                index[i, : len(numbers)] = numbers
            self._sizes += membership.sum(-1)
            self._looks.append((threat, index[local], membership[local]))

    @classmethod
    def start(cls, plan: Plan, trunk: Tensor, placement: Placement) -> DualUpdate:
        """Returns the state before the first update, targets set.

        Args:
            plan: of the run.
            trunk: the trunk's averaged weights (1, P).
            placement: of agents and twin.
        """
        dual = cls(
            plan.nets,
            plan.constraints,
            plan.rows,
            plan.held_out,
            plan.config,
            placement=placement,
            merge_shift=merge_shift_of(plan),
        )
        dual.set_targets(plan.constitution, trunk, plan.nets.rows("constraint"))
        return dual

    def set_targets(
        self, constitution: Constitution, trunk: Tensor, rows: Rows
    ) -> None:
        """Sets the targets from the trunk's rates on the *constraint* rows.

        Args:
            constitution: gives tau and alpha.
            trunk: its averaged weights (1, P).
            rows: the constraint split.
        """
        inside = self.constraints.membership(rows.groups, rows.y)
        everything = torch.arange(len(rows))
        for threat in self.constraints.threats:
            cells = self.constraints.under(threat)
            ((part, numbers),) = measured(inside[cells], [everything], 0, ATTACKED)
            inside[cells] = False
            inside[cells.nonzero(), numbers] = part
        nets = self._nets
        hits = cell_hits(nets, self.constraints, trunk[0], rows, inside)
        rates = hits / inside.sum(-1)
        aims = targets(
            self.constraints, constitution, nets.counts, rates, self._sizes.sum(0)
        )
        # Slack loosens training alone, and never past the promise itself.
        self.targets = torch.minimum(aims + self._slack, self._tau)

    def update(self, averaged: Tensor, finite: Tensor) -> dict[str, Any]:
        """Measures the agents' averaged weights and moves the multipliers.

        Args:
            averaged: weights of this process' nets (k, P), its agents first.
            finite: (k,) booleans of all; other agents are left out of the pool.

        Returns:
            For the log: `violation`, principle id -> how far the pooled hard metric,
            shifted to the agents' mean, is beyond its line, without those that are not
            defined;
            `multiplier`, principle id -> pair -> lambda; `teaches`, of each agent;
            `shift`, by pair as the multipliers, unless there is none.
        """
        rates, eligible = torch.zeros(0), finite
        if self.constraints.pairs:
            hits = self.placement.gather(self.hits(averaged), len(finite))
            # 0 / 0 is NaN: a cell that no row was set aside of moves and marks nothing.
            rates = hits[finite].sum(0) / self._sizes[finite].sum(0)
            self.pooled = self.constraints.differences(rates)
            self.measure_shift(averaged, finite)
            # This, and not the pool, is what is to be released.
            merged = self.pooled + self.shift + self.unseen
            self.controller.step(merged - self.targets)
            self._mark_violating(hits / self._sizes)
            eligible = finite & ~self._violating
        weights = self.constraints.weights(self.controller.multipliers)
        # A comparison turns one bit of difference between two kinds of processors
        # into another decision, so every process takes rank 0's.
        self.placement.broadcast(weights, eligible)
        self.cell_weights, self.eligible = weights, eligible
        pairs = {"shift": self.shift} if bool(self.shift.any()) else {}
        return {
            **{name: self.constraints.by_pair(of) for name, of in pairs.items()},
            "violation": self.constraints.violations(rates, self.shift + self.unseen),
            "multiplier": self.constraints.by_pair(self.controller.multipliers),
            "teaches": eligible.tolist(),
        }

    def correct(self, fresh: Tensor, broken: Tensor) -> None:
        """Steers by what fresh rows show of pairs that they show to be broken.

        What their difference exceeds that of the agents' mean by is added from now on,
        and taken from that of the same pair the other way round: the rows that steer
        may have wrong labels. The multipliers of the broken pairs rise at once.

        Args:
            fresh: differences on rows that nothing was fitted on (pairs,).
            broken: which pairs are shown to be broken (pairs,).
        """
        known = self.pooled + self.shift + self.unseen
        excess = (fresh - known).clamp(min=0).nan_to_num(0)
        excess = torch.where(broken, excess, 0.0)
        opposites = self.constraints.opposites
        # What is held to a line has no other way round; then nothing is taken.
        other = [len(excess) if place is None else place for place in opposites]
        self.unseen = self.unseen + excess - torch.cat([excess, torch.zeros(1)])[other]
        above = torch.where(broken, fresh - self._tau, 0.0)
        self.controller.raise_by(above, AT_ONCE)
        weights = self.constraints.weights(self.controller.multipliers)
        self.placement.broadcast(self.unseen, weights)
        self.cell_weights = weights

    def hits(self, averaged: Tensor) -> Tensor:
        """Returns hits per cell (agents, cells) of the local agents on their folds.

        None in a process that holds the twin alone.
        """
        alone = self.placement.one_of_several(len(self._sizes))
        total = torch.zeros(len(self._looks[0][1]), len(self.constraints.cells))
        for threat, numbers, membership in self._looks:
            agents, rows = numbers.shape
            most = max(1, CHUNK_ROWS // max(1, agents))
            # Without an agent there is nothing to compute.
            for first in range(0, rows if agents else 0, most):
                block = slice(first, first + most)
                found = asked(
                    *(self._nets, averaged[:agents], self._rows, numbers[:, block]),
                    threat,
                    one_of_several=alone,
                )
                y, inside = self._rows.y[numbers[:, block]], membership[:, :, block]
                total += cell_sums(found, y, inside, self.constraints.cells)
        return total

    def measure_shift(self, averaged: Tensor, finite: Tensor) -> None:
        """Measures what the agents' mean differs by from them.

        At every update: held for a few, it swings with the multipliers it drives.

        Args:
            averaged: weights of this process' nets, its agents first.
            finite: (k,) booleans of all; other agents are left out.
        """
        if self.merge_shift:
            answers = self.answers(averaged, finite, self.merge_shift.rows)
            self.shift = self.merge_shift.kept(*answers)
            self.placement.broadcast(self.shift)

    def answers(
        self, averaged: Tensor, finite: Tensor, rows: Rows
    ) -> tuple[Tensor, Tensor]:
        """Returns what agents (k, n) and their mean (n,) predict of rows.

        Args:
            averaged: weights of this process' nets, its agents first.
            finite: (k,) booleans of all; other agents are left out, of the mean too.
            rows: to answer.
        """
        k, agents = len(finite), len(self._looks[0][1])
        alone = self.placement.one_of_several(k)
        soup = self.placement.gather(averaged.cpu())[:k][finite].mean(0, keepdim=True)
        own, merged = torch.zeros(agents, len(rows), dtype=torch.long), []
        for block in rows.blocks(max(1, agents)):
            # Without an agent there is nothing to compute.
            if agents:
                theta, index = averaged[:agents], block[None]
                out = self._nets.logits(theta, rows, index, one_of_several=alone)
                own[:, block] = predicted(out)
            merged.append(predicted(self._nets.logits(soup, rows, block[None]))[0])
        return self.placement.gather(own, k)[finite], torch.cat(merged)

    def _mark_violating(self, rates: Tensor) -> None:
        """Marks an agent whose violation is sure, and clears one without any.

        Between the two lines an agent keeps its mark (hysteresis): a point test
        on a hundred positives would mark agents at random.
        """
        excess = self.constraints.differences(rates) + self.unseen - self._tau
        errors = self.constraints.standard_errors(rates, self._sizes)
        surely = (excess - self._z * errors > 0).any(1)
        clear = ((excess <= 0) | excess.isnan()).all(1)
        self._violating = surely | (self._violating & ~clear)

    def state_dict(self) -> StateDict:
        """Returns targets, controller, marks and the last decision."""
        own = {"targets": self.targets, "violating": self._violating}
        own |= {"pooled": self.pooled, "unseen": self.unseen, "shift": self.shift}
        own |= {"cell_weights": self.cell_weights, "eligible": self.eligible}
        return StateDict(common=own | self.controller.tensors())

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from there."""
        tensors = dict(state.common)
        self.targets, self._violating = (
            tensors.pop("targets"),
            tensors.pop("violating"),
        )
        self.pooled, self.unseen = tensors.pop("pooled"), tensors.pop("unseen")
        self.shift = tensors.pop("shift")
        self.cell_weights, self.eligible = (
            tensors.pop("cell_weights"),
            tensors.pop("eligible"),
        )
        self.controller.load_tensors(**tensors)


def merge_shift_of(plan: Plan) -> MergeShift | None:
    """Returns what measures a plan's agents' mean; None where they are alike."""
    clean = plan.constraints.under(None)
    if not (bool(clean.any()) and differ(plan.roles)):
        return None
    # Of several architectures each has a mean of its own, and none is sure to be it.
    if bool(dealt(plan.nets, plan.roles).any()):
        return None
    # It is measured of answers, not of losses.
    if any(cell.loss is not None for cell in plan.constraints.cells):
        return None
    rows = plan.nets.rows("validation")
    # Under an attack agents and mean would be asked about other rows each.
    inside = plan.constraints.membership(rows.groups, rows.y) & clean[:, None]
    everything = torch.arange(len(rows))
    seed = plan.seed("merge shift")
    [(counted, numbers)] = measured(inside, [everything], seed, SHOWN)
    return MergeShift(plan.constraints, rows.where(numbers), counted)


def cell_hits(
    nets: Nets, constraints: Constraints, theta: Tensor, rows: Rows, inside: Tensor
) -> Tensor:
    """Returns the hits per cell (cells,) of weights (P,) on rows.

    Args:
        nets: what answers.
        constraints: name the cells.
        theta: weights (P,).
        rows: to answer.
        inside: which row counts in which cell (cells, n).
    """
    cells = constraints.cells
    hits = torch.zeros(len(cells))
    for block in rows.blocks():
        found = nets.logits(theta[None], rows, block[None])
        counted = inside[:, block] & constraints.under(None)[:, None]
        hits += cell_sums(found, rows.y[block], counted, cells)[0]
    for threat in constraints.threats:
        counted = inside & constraints.under(threat)[:, None]
        # An attack costs many answers: to rows that count in no cell there is none.
        attacked = counted.any(0).nonzero()[:, 0]
        for block in torch.split(attacked, CHUNK_ROWS) if len(attacked) else ():
            out = asked(nets, theta[None], rows, block[None], threat)
            hits += cell_sums(out, rows.y[block], counted[:, block], cells)[0]
    return hits


def measured(
    inside: Tensor, held_out: Sequence[Tensor], seed: int, most: int | None = None
) -> list[tuple[Tensor, Tensor]]:
    """Returns the rows that each agent is measured on, and the cells they count in.

    These are its fold's rows of all cells. If they are too many in all, rows of the
    large cells are drawn, cell by cell: small ones keep theirs, and no rate is biased.

    Args:
        inside: which row counts in which cell (cells, n).
        held_out: row numbers that each agent sets aside.
        seed: of the draw.
        most: rows of all agents; None is `MEASURED`.

    Returns:
        Per agent booleans (cells, rows) and row numbers (rows,).
    """
    parts, most = [inside[:, fold] for fold in held_out], most or MEASURED
    if sum(int(part.any(0).sum()) for part in parts) > most:
        each = max(1, most // (len(parts) * len(inside)))
        generator = torch.Generator().manual_seed(seed)
        for part in parts:
            for cell in part:
                members = cell.nonzero()[:, 0]
                order = torch.randperm(len(members), generator=generator)
                cell[members[order[each:]]] = False
    counted = [part.any(0) for part in parts]
    return [
        (part[:, any_cell], fold[any_cell])
        for part, fold, any_cell in zip(parts, held_out, counted, strict=True)
    ]
