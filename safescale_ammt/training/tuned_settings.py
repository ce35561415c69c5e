"""Tuned settings: learning rate, weight decay and dual rate of each net.

A net with a setting is a net with a role of its own: the tuned decay is added to the
role's, and the tuned dual rate multiplies its constraint weight c. An agent sees the
multipliers as c lambda, which move with the gains c ki and c kp: a factor on c is a
factor on the dual rates as this agent sees them, while lambda stays one for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.training.learner import Learner
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan

RATE, DECAY, DUAL = range(3)
"""Columns of a setting."""
NAMES = ("learning_rate", "weight_decay", "dual_rate")
QUANTILE = 0.25
"""Share of the agents that take over, and of those that are taken from."""
LOOKED_AT = 1 << 16
"""Most rows that losses are measured on."""
START = (3.0, 10.0, 1.0)
"""Greatest factors between the agents' first settings and the race's best."""


@dataclass(frozen=True)
class Ranges:
    """Where settings may lie.

    Attributes:
        least: of each column (3,) float64.
        greatest: of each column (3,) float64.
    """

    least: Tensor
    greatest: Tensor

    @classmethod
    def of(cls, config: TrainingConfig) -> Ranges:
        """Reads the section's ranges."""
        ranges = (
            *(config.tune_learning_rate, config.tune_weight_decay),
            config.tune_dual_rate,
        )
        ends = torch.tensor(ranges, dtype=torch.float64)
        return cls(ends[:, 0], ends[:, 1])

    def clamp(self, settings: Tensor) -> Tensor:
        """Moves settings (n, 3) into the ranges."""
        return torch.minimum(torch.maximum(settings, self.least), self.greatest)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draws rates and decays evenly on a log scale; dual rates are 1.

        Each column is a Latin hypercube's (McKay et al. 1979): one draw in each of
        `count` equal parts of the range, so that few draws leave no decade out.

        Returns:
            Settings (count, 3).
        """
        settings = torch.ones(count, len(NAMES), dtype=torch.float64)
        for column in (RATE, DECAY):
            part = torch.randperm(count, generator=generator)
            within = torch.rand(count, generator=generator, dtype=torch.float64)
            least, greatest = self.least[column], self.greatest[column]
            settings[:, column] = least * (greatest / least) ** (
                (part + within) / count
            )
        return settings

    def around(self, winner: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Spreads settings evenly around a winner's (1, 3), in random order.

        Returns:
            Settings (count, 3).
        """
        settings, places = winner.repeat(count, 1), torch.zeros(1)
        if count > 1:
            places = torch.linspace(-1, 1, count, dtype=torch.float64)
        for column, most in enumerate(START):
            order = torch.randperm(count, generator=generator)
            settings[:, column] *= most ** places[order]
        return self.clamp(settings)

    def perturb(
        self, setting: Tensor, most: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Multiplies a setting (3,) by factors up to `most` (3,), evenly in logs."""
        draws = torch.rand(len(NAMES), generator=generator, dtype=torch.float64)
        return self.clamp(setting * most ** (2 * draws - 1))


def middle(settings: Tensor) -> Tensor:
    """Returns the geometric mean of settings (1, 3); none of none (0, 3)."""
    return settings.log().mean(0, keepdim=True).exp()[: len(settings)]


def apply(
    learner: Learner, settings: Tensor, roles: Sequence[Role], config: TrainingConfig
) -> None:
    """Gives the nets of this process their settings.

    Args:
        learner: the nets.
        settings: of all nets (n, 3).
        roles: of all nets, as the section deals them out.
        config: its learning rate is what tuned ones are factors of.
    """
    slots = learner.placement.local_slots
    own = [settings[slot].tolist() for slot in slots]
    learner.retune(
        [
            replace(
                roles[slot],
                weight_decay=roles[slot].weight_decay + decay,
                constraint_weight=roles[slot].constraint_weight * dual,
            )
            for slot, (_, decay, dual) in zip(slots, own, strict=True)
        ],
        [rate / config.learning_rate for rate, _, _ in own],
    )


def validation_losses(plan: Plan, learner: Learner, placement: Placement) -> Tensor:
    """Returns every net's loss on each row of *validation* (nets, n) float64.

    Of averaged weights; infinite if it is no number. No weight is fitted on these rows;
    those of *monitor* and *select* stay untouched.
    """
    alone = placement.one_of_several()
    losses = placement.gather(row_losses(plan, learner.averaged, alone))
    # A comparison turns a bit of difference between processors into another choice.
    placement.broadcast(losses)
    return losses


def row_losses(plan: Plan, theta: Tensor, alone: bool = False) -> Tensor:
    """Returns the losses of nets (k, P) on rows of *validation* (k, n) float64.

    Of n rows that are all answered right nobody knows that the next will be, too. By
    Laplace's rule of succession one in n + 2 will not: each row's loss counts n + 1
    times, and once its loss if it were of another class. Without that, of nets that
    are right on a few dozen rows the most reckless has the least loss.

    Args:
        plan: of the run.
        theta: weights of nets, of which this process has some.
        alone: whether it has just one of several.
    """
    nets, rows = plan.nets, plan.nets.rows("validation").part(LOOKED_AT)
    found = [torch.zeros(len(theta), 0, dtype=torch.float64)]
    n, classes = len(rows), len(nets.classes)
    # Row after row another of the other classes; none where numbers are predicted.
    other = rows.y
    if classes:
        other = (rows.y + 1 + torch.arange(n) % max(1, classes - 1)) % classes
    for block in rows.blocks(max(1, len(theta))):
        out = nets.logits(theta, rows, block[None], one_of_several=alone)
        for_sure, if_not = (
            torch.stack([nets.row_losses(each, y[block]) for each in out])
            for y in (rows.y, other)
        )
        found.append(((n + 1) * for_sure + if_not).to(torch.float64) / (n + 2))
    return torch.cat(found, 1).nan_to_num(math.inf)


def told(setting: Tensor) -> dict[str, float]:
    """Returns a setting (3,) as an event shows it."""
    values = [float(f"{value:.4g}") for value in setting.tolist()]
    return dict(zip(NAMES, values, strict=True))
