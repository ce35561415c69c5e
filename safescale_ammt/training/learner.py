"""Learner: k nets that take one optimizer step together.

The loss of net i is

    L_i = task loss + c_i sum_cells w_cell mean P(outcome of the cell)

with the role's constraint weight c_i and the cells' weights w from the multipliers. Of
rows under attack 1 + log2 P stands in the place of P, of predicted numbers the soft
loss (`soft_rates`).
Nets share no tensor, so the gradient of the sum is each net's own, and a net whose
loss is not finite cannot touch another. How the gradient is computed is the nets'
own matter: of one genome in `genome_nets`, of any `torch.nn.Module` in the room
`modules`. The task loss of class codes is

    (1 - b_i) log loss + 4 b_i Brier score

with the role's Brier share b_i.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as f

from safescale_ammt.config.roles import ROLES, Role
from safescale_ammt.model.network import (
    chances,
    net_by_net,
    probability,
    row_log_losses,
)
from safescale_ammt.training.adam import Adam
from safescale_ammt.training.bounded_loss import soft_losses
from safescale_ammt.training.constraints import Cell
from safescale_ammt.training.muon import Matrix, Muon
from safescale_ammt.training.placement import Placement, ProcessGroup
from safescale_ammt.training.roles import traits
from safescale_ammt.training.stateful import StateDict
from safescale_ammt.training.sync import Round


class Learner(ABC):
    """Weights, optimizer state and weight averages of k nets.

    Args:
        theta: weights to start from (k, P), and behind them what else a net changes
            from step to step, such as running means: it is shared and averaged too,
            and the optimizer leaves it alone.
        ema: decay of the weight average.
        stability: gradient norm above which a net skips its step.
        parameters: how many of the columns are weights; None is all.
        matrices: those of each net that Muon moves; None is Adam alone.
    """

    def __init__(
        self,
        theta: Tensor,
        *,
        ema: float,
        stability: float,
        parameters: int | None = None,
        matrices: Sequence[tuple[Matrix, ...]] | None = None,
    ) -> None:
        # Steps write in place, and the caller's tensor is not ours to change.
        self.theta = theta.clone()
        self.averaged = theta.clone()
        self.placement = Placement(len(theta))
        self.roles: Sequence[Role] = [ROLES["generalist"]] * len(theta)
        self.traits = traits(self.roles)
        self._ema = ema
        decay = self.traits.weight_decay[:, None]
        weights = self.theta[:, :parameters]
        self.optimizer = (
            Adam(weights, decay, stability)
            if matrices is None
            else Muon(weights, decay, stability, matrices)
        )

    @abstractmethod
    def gradient(
        self, batch: Tensor, extra: Tensor, cell_weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the task losses (k,) and the Lagrangians' gradient (k, weights)."""

    @abstractmethod
    def place(self, slots: range) -> None:
        """Takes up the roles, each net with randomness of its own slot."""

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
        active = self.optimizer.step(self.theta[:, : grad.shape[1]], grad, rate)
        # A net that skips is averaged too: all averages are over as many steps.
        self.averaged.lerp_(self.theta, 1 - self._ema)
        return task, ~active

    def fork(
        self,
        roles: Sequence[Role],
        placement: Placement | None = None,
        rows: Tensor | None = None,
    ) -> None:
        """Makes copies of the nets that there are, one per role.

        Args:
            roles: of the copies; from now on they differ.
            placement: which of the copies this process trains; None is all.
            rows: which net each of the local copies is one of; None is the first.
        """
        self.placement = placement or Placement(len(roles))
        slots = self.placement.local_slots
        self.roles = [roles[i] for i in slots]
        if rows is None:
            rows = torch.zeros(len(slots), dtype=torch.long)
        self.theta, self.averaged = self.theta[rows], self.averaged[rows]
        self.traits = traits(self.roles)
        self.optimizer = self.optimizer.select(rows, self.traits.weight_decay[:, None])
        self.place(slots)

    def retune(self, roles: Sequence[Role], scale: Sequence[float]) -> None:
        """Gives every net here other numbers of its role, and another learning rate.

        Args:
            roles: as `self.roles`, with other weights of constraints and decays.
            scale: factor on the learning rate of each net.
        """
        self.roles = roles
        self.traits = traits(roles)
        self.optimizer.retune(self.traits.weight_decay[:, None], scale)

    def take_over(self, sources: Mapping[int, int]) -> None:
        """Overwrites weights, averages and optimizer of nets with those of others.

        Args:
            sources: slot -> slot that it becomes a copy of, wherever they are placed.
        """
        rows = torch.arange(self.placement.nets)
        for to, source in sources.items():
            rows[to] = source
        local = rows[list(self.placement.local_slots)]
        for tensor in (self.theta, self.averaged, *self.optimizer.tensors().values()):
            # In place: what a net computes with may be a view of its row.
            tensor.copy_(self.placement.gather(tensor.cpu())[local])

    def adopt(self, theta: Tensor, sync_round: Round) -> None:
        """Takes the agents' shared weights; lost agents start again from theirs.

        Args:
            theta: weights of all agents after a sync round (k, P).
            sync_round: says who copied the consensus: their averages and optimizer
                state may be as broken as their weights were.
        """
        local = self.placement.local_below(len(theta))
        self.theta[: len(local)] = theta[local.start : local.stop]
        rows = torch.tensor(
            self.placement.local_rows(sync_round.lost), dtype=torch.long
        )
        self.averaged[rows] = self.theta[rows]
        self.optimizer.restart(rows)

    def broadcast(self, process_group: ProcessGroup) -> None:
        """Takes rank 0's weights, averages and optimizer state."""
        for tensor in (self.theta, self.averaged, *self.optimizer.tensors().values()):
            # Processes exchange what lies with the processor.
            host = tensor.cpu()
            process_group.broadcast(host)
            if host is not tensor:
                tensor.copy_(host)

    def finite(self) -> Tensor:
        """Returns which nets have finite weights and averages, (k,) booleans."""
        both = self.theta.isfinite() & self.averaged.isfinite()
        return both.all(1).cpu()

    def state_dict(self) -> StateDict:
        """Returns weights, averages and optimizer."""
        each = {
            "theta": self.theta,
            "averaged": self.averaged,
        } | self.optimizer.tensors()
        return StateDict({name: tensor.cpu() for name, tensor in each.items()})

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from a state of as many nets."""
        device = self.theta.device
        each = {name: tensor.to(device) for name, tensor in state.each.items()}
        self.theta, self.averaged = each["theta"], each["averaged"]
        self.optimizer.load_tensors(each)


def task_loss(out: Tensor, label: Tensor, brier: Tensor) -> Tensor:
    """Returns each net's loss (k,), averaged over heads and rows.

    Args:
        out: logits (k, heads, B, n_out).
        label: class codes (k, B), or chances: of class 1, or of each class (k, B, C).
        brier: the Brier score's share (k,). Its factor 4 gives both parts of the
            loss the same curvature at probability 1/2.
    """
    k, heads, _, n_out = out.shape
    target = label if n_out == 1 else chances(label, n_out)
    hit = target[:, None].expand(k, heads, *target.shape[1:]).to(out.dtype)
    if n_out == 1:
        log_loss = net_by_net(_log_loss, out[..., 0], hit)
    else:
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


def soft_rates(
    logits: Tensor, cells: Sequence[Cell], y: Tensor | None = None
) -> Tensor:
    """Returns each cell's soft rate (k, cells) of logits (k, cells * m, n_out).

    That is mean P(outcome); of a cell under attack 1 + mean log2 P(outcome), below the
    share of right answers: an attacked row that is wrong for sure has no slope of P.
    Of a cell with a loss it is the mean soft loss.

    Args:
        logits: answers, cell by cell.
        cells: of as many rows each.
        y: numbers to predict of these rows (k, cells * m, n_out), where cells have one.
    """
    by_cell = logits.unflatten(1, (len(cells), -1))  # type: ignore[no-untyped-call]
    rates = []
    for i, cell in enumerate(cells):
        if cell.loss is not None:
            assert y is not None
            numbers = y.unflatten(1, (len(cells), -1))[:, i]  # type: ignore[no-untyped-call]
            rates.append(soft_losses(cell.loss, by_cell[:, i], numbers).mean(1))
            continue
        if cell.threat is None:
            rates.append(probability(by_cell[:, i], cell.outcome).mean(1))
            continue
        right = by_cell[:, i].flatten(0, 1)
        label = torch.full((len(right),), cell.outcome, device=logits.device)
        losses = row_log_losses(right, label).view(len(logits), -1).mean(1)
        rates.append(1 - losses / math.log(2))
    return torch.stack(rates, 1)
