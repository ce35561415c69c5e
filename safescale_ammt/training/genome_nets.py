"""Nets of one genome: their gradient, what they answer, what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.model.device import CPU
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.network import (
    Dropout,
    forward,
    initial,
    unflatten,
)
from safescale_ammt.model.predictor import Deployable
from safescale_ammt.training.constraints import Cell
from safescale_ammt.training.encoded import EncodedDataset, EncodedRows
from safescale_ammt.training.gradients import Backprop, Objective
from safescale_ammt.training.learner import Learner, soft_rates, task_loss
from safescale_ammt.training.muon import matrices_of
from safescale_ammt.training.pairs import Pairs
from safescale_ammt.training.seeds import derived_seed
from safescale_ammt.training.stateful import StateDict, stack_rows
from safescale_ammt.training.student import learnt_on
from safescale_ammt.training.table_nets import TableNets

if TYPE_CHECKING:
    from safescale_ammt.constitution.constitution import Constitution
    from safescale_ammt.training.trainer import Trained


class GenomeNets(TableNets):
    """Nets of one genome on one dataset (`nets.Nets`).

    Args:
        encoded: the dataset as tensors.
        genome: of every net.
        device: where they are computed.
        said: what is to be said of it.
    """

    def __init__(
        self,
        encoded: EncodedDataset,
        genome: Genome,
        device: torch.device = CPU,
        said: str = "",
    ) -> None:
        super().__init__(encoded, genome.encoding)
        self.genome, self.device, self._said = genome, device, said
        d_in = encoded.d_in(genome.encoding)
        self._layout = shapes(genome, d_in, encoded.n_out)

    def unapplied(self, config: TrainingConfig) -> Iterator[str]:
        """Yields what the section asks for and these nets do not do."""
        yield from super().unapplied(config)
        if self._said:
            yield self._said

    def learner(
        self, rows: EncodedRows, cells: Sequence[Cell], config: TrainingConfig
    ) -> GenomeLearner:
        """Returns the one net that the trunk trains."""
        n_out, seed = self.encoded.n_out, config.seed
        return GenomeLearner(
            self.genome,
            rows,
            initial(self.genome, rows.width, n_out, [derived_seed(seed, "weights")]),
            n_out=n_out,
            ema=config.ema,
            stability=config.gradient_stability_threshold,
            seed=derived_seed(seed, "dropout"),
            cells=cells,
            device=self.device,
            muon=config.optimizer == "muon",
        )

    def logits(
        self,
        theta: Tensor,
        rows: EncodedRows,
        index: Tensor,
        *,
        one_of_several: bool = False,
    ) -> Tensor:
        """Returns the logits (k, B, n_out), averaged over a net's heads."""
        weights = unflatten(theta.to(self.device), self._layout)
        x = rows.batch(index).to(self.device)
        with torch.no_grad():
            out = forward(self.genome, weights, x, one_of_several=one_of_several)
        return out.mean(1).cpu()

    def deployable(self, theta: Tensor, form: str) -> Deployable:
        """Makes rows of weights (members, P) one deployable model."""
        positive = self.outcomes[0] if len(self.outcomes) == 1 else None
        weights = {n: w.numpy() for n, w in unflatten(theta, self._layout).items()}
        return Deployable(self.genome, weights, form, positive)

    def student(
        self, trained: Trained, constitution: Constitution, *, soft: float
    ) -> Tensor:
        """Returns a net (1, P) that has learnt on from the soup of trained agents."""
        return learnt_on(trained, constitution, soft=soft)


class GenomeLearner(Learner):
    """k nets of one genome.

    Args:
        genome: of all nets.
        rows: what they train on.
        theta: weights to start from (k, P).
        n_out: logits of a net.
        ema: decay of the weight average.
        stability: gradient norm above which a net skips its step.
        seed: of the dropout masks.
        cells: whose soft rates are part of the loss, in steps with rows of them.
        device: where they are computed.
        muon: whether it moves the matrices that the heads share.
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
        device: torch.device = CPU,
        muon: bool = False,
    ) -> None:
        layout = shapes(genome, rows.width, n_out).items()
        # What is a head's own is no matrix of a layer, and the last one answers.
        shared = [(len(shape) == 2 and "weight" in n, shape) for n, shape in layout]
        super().__init__(
            theta.to(device),
            ema=ema,
            stability=stability,
            matrices=[matrices_of(shared)] * len(theta) if muon else None,
        )
        self._device = device
        self.genome = genome
        self.layout = shapes(genome, rows.width, n_out)
        self._rows = rows
        self._dropout = Dropout(genome.dropout, seed, device)
        self._dropout.place(range(len(theta)), len(theta))
        self._seed = seed
        self._input_drop: list[Dropout] = []
        self._cells = cells
        self._outcomes = torch.tensor([c.outcome for c in cells], dtype=torch.long)
        # What is computed by hand is for a processor's cache.
        plain = genome.heads == 1 and device.type == "cpu"
        self._backprop = Backprop(genome, self.layout) if plain else None
        # A residual link from the inputs adds them whole.
        own = self.layout["layer0.weight"] if genome.widths else (0, 0)
        self._paired = own[1] > 0 and not (genome.residual and own[0] == own[1])

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
            return task.detach().cpu(), grad
        index = torch.cat([batch, extra], 1)
        masks = [self._dropout.masks(index.shape[1] * w) for w in self.genome.widths]
        each = extra.shape[1] // max(1, len(self._cells))
        weight = (cell_weights / each).repeat_interleave(each)
        objective = Objective(
            self._rows.y[batch],
            [role.brier for role in self.roles],
            self._outcomes.repeat_interleave(each),
            self.traits.constraint_weight[:, None] * weight,
        )
        rows = self.inputs(index)
        logits, grad = self._backprop(self.theta, rows, masks, objective)
        task = logits[:, None, : batch.shape[1]]
        return task_loss(task, objective.label, self.traits.brier), grad

    def inputs(self, index: Tensor) -> list[Tensor | Pairs]:
        """Returns each net's rows as it sees them in training: as pairs if faster.

        Args:
            index: row numbers (k, n).
        """
        drops = [role.input_drop > 0 for role in self.roles]
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
        x = self._rows.batch(index).to(self._device)
        for i, probability_of_0 in enumerate(self.traits.input_drop.tolist()):
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
        label, brier, pressure, weight = (
            each.to(self._device)
            for each in (
                self._rows.y[batch],
                self.traits.brier,
                self.traits.constraint_weight,
                cell_weights,
            )
        )
        task = task_loss(out[:, :, :size], label, brier)
        if extra.shape[1] == 0:
            return task, task
        # The promise is about the answer, which averages the logits of the heads.
        soft = soft_rates(out[:, :, size:].mean(1), self._cells)
        return task, task + pressure * (soft @ weight)

    def place(self, slots: range) -> None:
        """Gives each net the dropout masks of its slot."""
        self._dropout.place(slots, self.placement.nets)
        # A generator per net, seeded by its slot: whichever process holds it, the
        # net sees the same masks.
        self._input_drop = [
            Dropout(role.input_drop, self._seed + i + 1, self._device)
            for i, role in zip(slots, self.roles, strict=True)
        ]

    def retune(self, roles: Sequence[Role], scale: Sequence[float]) -> None:
        """Gives every net other numbers of its role, and another learning rate."""
        each = zip(self.placement.local_slots, self.roles, roles, strict=True)
        for i, (slot, before, role) in enumerate(each):
            if before.input_drop != role.input_drop:
                drawn = self._input_drop[i].generator.get_state()
                own = Dropout(role.input_drop, self._seed + slot + 1, self._device)
                own.generator.set_state(drawn)
                self._input_drop[i] = own
        super().retune(roles, scale)

    def state_dict(self) -> StateDict:
        """Returns weights, averages, optimizer and the generators of the masks."""
        generators = [drop.generator.get_state() for drop in self._input_drop]
        common = {"dropout": self._dropout.generator.get_state()}
        masks = {"input_drop": stack_rows(generators, common["dropout"])}
        return StateDict(super().state_dict().each | masks, common)

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from a state of as many nets."""
        super().load_state_dict(state)
        self._dropout.generator.set_state(state.common["dropout"])
        for drop, row in zip(self._input_drop, state.each["input_drop"], strict=True):
            # A copy: torch crashes on a view that does not begin its storage.
            drop.generator.set_state(row.clone())
