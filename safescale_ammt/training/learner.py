"""Learner: k nets that take one optimizer step together.

The loss of net i is

    L_i = (1 - b_i) log loss + 4 b_i Brier score  (mean over heads and rows)
          + c_i sum_cells w_cell mean P(outcome of the cell)

with the role's Brier share b_i and constraint weight c_i, and the cells' weights
w from the multipliers. Nets share no tensor, so the gradient of the sum is each
net's own, and a net whose loss is not finite cannot touch another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.config.roles import ROLES, Role
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.network import (
    Dropout,
    Weights,
    forward,
    initial,
    net_by_net,
    probability,
    unflatten,
)
from safescale_ammt.training.adam import Adam
from safescale_ammt.training.constraints import Cell
from safescale_ammt.training.encoded import EncodedRows
from safescale_ammt.training.gradients import Backprop, Objective
from safescale_ammt.training.pairs import Pairs
from safescale_ammt.training.placement import Placement, ProcessGroup
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.roles import traits
from safescale_ammt.training.stateful import StateDict, stack_rows


class Learner:
    """Weights, optimizer state and weight averages of k nets of one genome.

    Args:
        genome: of all nets.
        rows: what they train on.
        theta: weights to start from (k, P).
        n_out: logits of a net.
        ema: decay of the weight average.
        stability: gradient norm above which a net skips its step.
        seed: of the dropout masks.
        cells: whose soft rates are part of the loss, in steps with rows of them.
    """

    def __init__(
        self,
        genome: Genome,
        rows: EncodedRows,
        theta: Tensor,
        *,
        n_out: int,
        ema: float,
        stability: float,
        seed: int,
        cells: Sequence[Cell] = (),
    ) -> None:
        self.genome = genome
        # Steps write in place, and the caller's tensor is not ours to change.
        self.theta = theta.clone()
        self.averaged = theta.clone()
        self.layout = shapes(genome, rows.width, n_out)
        self.placement = Placement(len(theta))
        self._rows = rows
        self._ema = ema
        self._dropout = Dropout(genome.dropout, seed)
        self._dropout.place(range(len(theta)), len(theta))
        self._seed = seed
        self._input_drop: list[Dropout] = []
        self._roles: Sequence[Role] = [ROLES["generalist"]] * len(theta)
        self._traits = traits(self._roles)
        self._cells = cells
        self._outcomes = torch.tensor([c.outcome for c in cells], dtype=torch.long)
        self.adam = Adam(theta, self._traits.weight_decay[:, None], stability)
        plain = genome.heads == 1
        self._backprop = Backprop(genome, self.layout) if plain else None
        # A residual link from the inputs adds them whole.
        own = self.layout["layer0.weight"] if genome.widths else (0, 0)
        self._paired = own[1] > 0 and not (genome.residual and own[0] == own[1])

    @classmethod
    def start(cls, plan: Plan) -> Learner:
        """Returns the one net that the trunk trains."""
        genome, config, n_out = plan.genome, plan.config, plan.encoded.n_out
        return cls(
            genome,
            plan.rows,
            initial(genome, plan.rows.width, n_out, [plan.seed("weights")]),
            n_out=n_out,
            ema=config.ema,
            stability=config.gradient_stability_threshold,
            seed=plan.seed("dropout"),
            cells=plan.constraints.cells,
        )

    def step(
        self, batch: Tensor, extra: Tensor, cell_weights: Tensor, rate: float
    ) -> tuple[Tensor, Tensor]:
        """Takes one step of every net.

        Args:
            batch: row numbers (k, B) of the task loss.
            extra: row numbers (k, cells * m) of the soft rates, cell by cell; none
                if nothing is enforced.
            cell_weights: weight of each cell in the Lagrangian (cells,).
            rate: learning rate.

        Returns:
            The task losses (k,), and which nets skipped the step (k,) because
            their gradient was not finite or longer than the stability threshold.
        """
        task, grad = self.gradient(batch, extra, cell_weights)
        active = self.adam.step(self.theta, grad, rate)
        # A net that skips is averaged too: all averages are over as many steps.
        self.averaged.lerp_(self.theta, 1 - self._ema)
        return task, ~active

    def gradient(
        self, batch: Tensor, extra: Tensor, cell_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the task losses (k,) and the Lagrangians' gradient (k, P)."""
        if self._backprop is None:
            theta = self.theta.requires_grad_()
            task, lagrangian = self._losses(theta, batch, extra, cell_weights)
            # No tensor is shared between nets: the sum's gradient is each net's own.
            (grad,) = torch.autograd.grad(lagrangian.sum(), theta)
            self.theta = theta.detach()
            return task.detach(), grad
        index = torch.cat([batch, extra], 1)
        masks = [self._dropout.masks(index.shape[1] * w) for w in self.genome.widths]
        each = extra.shape[1] // max(1, len(self._cells))
        weight = (cell_weights / each).repeat_interleave(each)
        objective = Objective(
            self._rows.y[batch],
            [role.brier for role in self._roles],
            self._outcomes.repeat_interleave(each),
            self._traits.constraint_weight[:, None] * weight,
        )
        rows = self.inputs(index)
        logits, grad = self._backprop(self.theta, rows, masks, objective)
        task = logits[:, None, : batch.shape[1]]
        return task_loss(task, objective.label, self._traits.brier), grad

    def inputs(self, index: Tensor) -> list[Tensor | Pairs]:
        """Returns each net's rows as it sees them in training: as pairs if faster.

        Args:
            index: row numbers (k, n).
        """
        drops = [role.input_drop > 0 for role in self._roles]
        found: list[Tensor | Pairs] = []
        paired: Iterator[Pairs] = iter([])
        if self._paired and not all(drops):
            # Of all nets at once: rows are far apart in memory, and lookups overlap.
            whole = index[~torch.tensor(drops)].flatten()
            pairs = self._rows.pairs(whole)
            paired = iter(pairs.split(index.shape[1]) if pairs else [])
        for i, drop in enumerate(drops):
            rows = None if drop else next(paired, None)
            if rows is None:
                x = self._rows.batch(index[i])
                found.append(self._input_drop[i](x) if drop else x)
            else:
                found.append(rows)
        return found

    def _losses(
        self, theta: Tensor, batch: Tensor, extra: Tensor, cell_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the task loss and the Lagrangian of every net, both (k,)."""
        index = torch.cat([batch, extra], 1)
        x = self._rows.batch(index)
        for i, probability_of_0 in enumerate(self._traits.input_drop.tolist()):
            if probability_of_0 > 0:
                x[i] = self._input_drop[i](x[i])
        out = forward(
            self.genome,
            unflatten(theta, self.layout),
            x,
            self._dropout,
            one_of_several=self.placement.one_of_several(),
        )
        size = batch.shape[1]
        task = task_loss(out[:, :, :size], self._rows.y[batch], self._traits.brier)
        if extra.shape[1] == 0:
            return task, task
        # The promise is about the answer, which averages the logits of the heads.
        soft = soft_rates(out[:, :, size:].mean(1), self._cells)
        return task, task + self._traits.constraint_weight * (soft @ cell_weights)

    def fork(self, roles: Sequence[Role], placement: Placement | None = None) -> None:
        """Makes equal copies of the one net that there is, one per role.

        Args:
            roles: of the copies; from now on they differ.
            placement: which of the copies this process trains; None is all.
        """
        self.placement = placement or Placement(len(roles))
        slots = self.placement.local_slots
        local_roles = [roles[i] for i in slots]
        rows = torch.zeros(len(slots), dtype=torch.long)
        self.theta, self.averaged = self.theta[rows], self.averaged[rows]
        self._roles, self._traits = local_roles, traits(local_roles)
        self.adam = self.adam.select(rows, self._traits.weight_decay[:, None])
        self._dropout.place(slots, len(roles))
        # A generator per net, seeded by its slot: whichever process holds it, the
        # net sees the same masks.
        self._input_drop = [
            Dropout(role.input_drop, self._seed + i + 1)
            for i, role in zip(slots, local_roles, strict=True)
        ]

    def adopt(self, theta: Tensor, lost: Sequence[int]) -> None:
        """Takes the agents' shared weights; lost agents start again from theirs.

        Args:
            theta: weights of all agents after a sync round (k, P).
            lost: slots of agents that copied the consensus: their averages and
                optimizer state may be as broken as their weights were.
        """
        local = self.placement.local_below(len(theta))
        self.theta[: len(local)] = theta[local.start : local.stop]
        rows = torch.tensor(self.placement.local_rows(lost), dtype=torch.long)
        self.averaged[rows] = self.theta[rows]
        self.adam.restart(rows)

    def broadcast(self, process_group: ProcessGroup) -> None:
        """Takes rank 0's weights, averages and optimizer state."""
        for tensor in (self.theta, self.averaged, *self.adam.tensors().values()):
            process_group.broadcast(tensor)

    def weights(self) -> Weights:
        """Returns the averaged weights of this process' nets by layer name."""
        return unflatten(self.averaged, self.layout)

    def finite(self) -> Tensor:
        """Returns which nets have finite weights and averages, (k,) booleans."""
        both = self.theta.isfinite() & self.averaged.isfinite()
        return both.all(1)

    def state_dict(self) -> StateDict:
        """Returns weights, averages, optimizer and the generators of the masks."""
        generators = [drop.generator.get_state() for drop in self._input_drop]
        common = {"dropout": self._dropout.generator.get_state()}
        each = {"theta": self.theta, "averaged": self.averaged}
        each |= {"input_drop": stack_rows(generators, common["dropout"])}
        return StateDict(each | self.adam.tensors(), common)

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from a state of as many nets."""
        self.theta, self.averaged = state.each["theta"], state.each["averaged"]
        self.adam.load_tensors(state.each)
        self._dropout.generator.set_state(state.common["dropout"])
        for drop, row in zip(self._input_drop, state.each["input_drop"], strict=True):
            # A copy: torch crashes on a view that does not begin its storage.
            drop.generator.set_state(row.clone())


def task_loss(out: Tensor, label: Tensor, brier: Tensor) -> Tensor:
    """Returns each net's loss (k,), averaged over heads and rows.

    Args:
        out: logits (k, heads, B, n_out).
        label: class codes (k, B).
        brier: the Brier score's share (k,). Its factor 4 gives both parts of the
            loss the same curvature at probability 1/2.
    """
    k, heads, size, n_out = out.shape
    target = label[:, None].expand(k, heads, size)
    if n_out == 1:
        hit = target.to(out.dtype)
        log_loss = net_by_net(_log_loss, out[..., 0], hit)
    else:
        hit = f.one_hot(target, n_out).to(out.dtype)
        log_loss = -(torch.log_softmax(out, -1) * hit).sum(-1)
    loss = log_loss.mean((1, 2))
    # Most roles have no Brier share; without one the second pass is left out.
    if not bool(brier.any()):
        return loss
    if n_out == 1:
        score = (net_by_net(torch.sigmoid, out[..., 0]) - hit).square()
    else:
        # Half of the sum: for two classes this is the score of one logit.
        score = (torch.softmax(out, -1) - hit).square().sum(-1) / 2
    return (1 - brier) * loss + brier * 4 * score.mean((1, 2))


def _log_loss(logit: Tensor, hit: Tensor) -> Tensor:
    return f.binary_cross_entropy_with_logits(logit, hit, reduction="none")


def soft_rates(logits: Tensor, cells: Sequence[Cell]) -> Tensor:
    """Returns mean P(outcome) per cell (k, cells) of logits (k, cells * m, n_out)."""
    by_cell = logits.unflatten(1, (len(cells), -1))  # type: ignore[no-untyped-call]
    rates = [
        probability(by_cell[:, i], cell.outcome).mean(1) for i, cell in enumerate(cells)
    ]
    return torch.stack(rates, 1)
