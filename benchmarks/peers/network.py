"""The base network: our genome, rows, steps and schedule, trained as one plain net.

What peers of the CLOSED division wrap. It is this library's own network (`forward`),
with torch's Adam at our rates and the average of the weights that we take; the first
weights and the batches are those of our trunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import Tensor
from torch.nn import functional as f

from benchmarks.transfer_tasks import POOL, Case
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.model.genome import Genome, shapes
from safescale_ammt.model.network import Dropout, forward, initial, unflatten
from safescale_ammt.training.dual_update import DualUpdate
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.sampling import CellSampler, RowOrder, trunk_batches

Scores = NDArray[Any]
BLOCK = 1 << 13
SCHEDULE = TrainingConfig()


@dataclass(frozen=True)
class Step:
    """What one step of a peer's training sees.

    Attributes:
        number: of the step.
        logits: of the batch (B,).
        label: of the batch (B,).
        cells: logits (cells, m) of as many rows of every cell.
    """

    number: int
    logits: Tensor
    label: Tensor
    cells: Tensor

    @property
    def loss(self) -> Tensor:
        """The log loss of the batch."""
        return f.binary_cross_entropy_with_logits(self.logits, self.label)


class Net(torch.nn.Module):
    """One network as a module of torch.

    Args:
        genome: its form.
        width: inputs of a row.
        seed: of the first weights; the masks have another one.
    """

    def __init__(self, genome: Genome, width: int, seed: int) -> None:
        super().__init__()
        self.genome = genome
        self.layout = shapes(self.genome, width, 1)
        theta = initial(self.genome, width, 1, [seed])
        self.theta = torch.nn.Parameter(theta)
        self.averaged = theta.clone()
        self.drop = Dropout(self.genome.dropout, seed + 1)
        self.drop.place(range(1), 1)

    def forward(self, x: Tensor, theta: Tensor | None = None) -> Tensor:
        """Returns logits (n,): in training, or of other weights."""
        weights = unflatten(self.theta if theta is None else theta, self.layout)
        drop = self.drop if theta is None else None
        return forward(self.genome, weights, x[None], drop)[0, 0, :, 0]

    def logits(self, x: Scores) -> Tensor:
        """Returns the logits (n,) of the averaged weights."""
        parts = torch.split(torch.from_numpy(np.asarray(x, np.float32)), BLOCK)
        with torch.no_grad():
            return torch.cat([self(part, self.averaged) for part in parts])

    def score(self, x: Scores) -> Scores:
        """Returns the chance of the positive class (n,)."""
        return torch.sigmoid(self.logits(x).double()).numpy()

    def steps(self, case: Case, optimizer: torch.optim.Optimizer) -> Iterator[Step]:
        """Yields a step for each that our nets take; the caller takes it.

        Between two of them the learning rate is set and the weights are averaged.
        """
        plan, rows = case.plan, case.nets.rows(*POOL)
        batches = trunk_batches(plan)
        inside = plan.constraints.membership(rows.groups, rows.y)
        sampler = CellSampler(inside, plan.views[-1:], plan.seed("cells"))
        for number in range(plan.steps):
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate(number)
            batch = batches.draw()[0][0]
            out = self(rows.batch(torch.cat([batch, sampler.draw()[0]])))
            label, cells = rows.y[batch].float(), out[len(batch) :]
            shaped = cells.view(len(inside), -1)
            yield Step(number, out[: len(batch)], label, shaped)
            self.averaged.lerp_(self.theta.detach(), 1 - plan.config.ema)


def new_net(case: Case) -> tuple[Net, torch.optim.Optimizer]:
    """Returns a net before its first step, and its optimizer."""
    width = case.nets.rows(*POOL).width
    net = Net(case.genome, width, case.plan.seed("weights"))
    return net, torch.optim.Adam(net.parameters(), lr=case.config.learning_rate)


def plain_net(case: Case) -> Net:
    """Trains the net without a constraint through torch: the peers' floor."""
    net, optimizer = new_net(case)
    for step in net.steps(case, optimizer):
        optimizer.zero_grad()
        torch.autograd.backward(step.loss)
        optimizer.step()
    return net


def trunk_net(case: Case) -> Net:
    """Trains the net without a constraint by our own learner: the base, the twin."""
    plan = case.plan
    rows, batches, nothing = case.nets.rows(*POOL), trunk_batches(plan), torch.zeros(0)
    learner = case.nets.learner(rows, plan.constraints.cells, plan.config)
    for step in range(plan.steps):
        learner.step(*batches.draw(), nothing, plan.learning_rate(step))
    net = Net(case.genome, rows.width, 0)
    net.averaged = learner.averaged.clone()
    return net


class NetClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """The same net for scikit-learn, with weights for its rows.

    Args:
        steps: optimizer steps.
        seed: of weights, batches and masks.
    """

    def __init__(self, steps: int = 1200, seed: int = 0) -> None:
        self.steps, self.seed = steps, seed

    def fit(self, x: Any, y: Any, sample_weight: Any = None) -> NetClassifier:
        """Trains a net of its own; the schedule is that of our nets."""
        x, y = np.asarray(x, np.float32), np.asarray(y)
        weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight)
        self.classes_, inputs = np.array([0, 1]), torch.from_numpy(x)
        target = torch.from_numpy(y.astype(np.float32))
        each = torch.from_numpy((weight / weight.mean()).astype(np.float32))
        self.net_ = Net(Genome(), x.shape[1], self.seed)
        optimizer = torch.optim.Adam(self.net_.parameters())
        order = RowOrder(torch.arange(len(y)), None, self.seed)
        for step in range(self.steps):
            warm = min(1.0, (step + 1) / SCHEDULE.warmup_steps)
            cosine = (1 + np.cos(np.pi * step / self.steps)) / 2
            optimizer.param_groups[0]["lr"] = SCHEDULE.learning_rate * warm * cosine
            batch = order.take(SCHEDULE.batch_size)
            loss = f.binary_cross_entropy_with_logits(
                self.net_(inputs[batch]), target[batch], each[batch]
            )
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            self.net_.averaged.lerp_(self.net_.theta.detach(), 1 - SCHEDULE.ema)
        return self

    def predict_proba(self, x: Any) -> Scores:
        """Returns the chances of both classes (n, 2)."""
        score = self.net_.score(x)
        return np.stack([1 - score, score], 1)

    def predict(self, x: Any) -> Scores:
        """Returns the class at one half."""
        return (self.net_.score(x) >= 0.5).astype(np.int64)


def trunk_of(case: Case) -> Net:
    """Returns the base network of a re-split, trained once."""
    net: Net = case.shared("trunk", lambda: trunk_net(case))
    return net


def aims_of(case: Case) -> Tensor:
    """Returns the gap of each pair that our margin lets training aim at (pairs,).

    As the dual update sets it, with the base's rates in place of the trunk's. Who holds
    pairs to bounds of their own aims there too.
    """

    def found() -> Tensor:
        trunk = trunk_of(case).averaged
        placement = Placement(len(case.plan.slots))
        return DualUpdate.start(case.plan, trunk, placement).targets

    return case.shared(f"aims at {case.tau}", found)


def aim_of(case: Case) -> float:
    """Returns the least of the aims, for those who know one tolerance of all rates."""
    return float(aims_of(case).min())


def pool_tensors(case: Case) -> tuple[Tensor, Tensor]:
    """Returns the pool's inputs (n, d) and its cells' rows (cells, n)."""
    rows = case.plan.rows
    inside = case.plan.constraints.membership(rows.groups, rows.y)
    return torch.from_numpy(case.rows(*POOL).x), inside
