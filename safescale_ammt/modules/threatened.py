"""Threatened rows: those of a step's cells that a net is shown under attack.

They are attacked by one step from noise (`n_fgsm` of `attacks.pgd`), within a radius
that grows over the first `WARM_UP` of the steps after the trunk, which knew of no
attack. A net that has left no trunk has learnt under attack before: it meets the whole
radius.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as tree

from safescale_ammt.attacks.ball import Ball
from safescale_ammt.attacks.pgd import Answer, n_fgsm
from safescale_ammt.config.roles import Role
from safescale_ammt.config.sections import TrainingConfig
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.training.constraints import Cell

WARM_UP = 0.25
"""Share of the steps after the trunk until attacks have their whole radius."""


class ThreatenedRows:
    """Which of the rows of cells are attacked, and how far.

    Args:
        cells: whose rows stand one cell after another, as many of each.
        config: the training section.
    """

    def __init__(self, cells: Sequence[Cell], config: TrainingConfig) -> None:
        self._cells, self._config = cells, config
        self.threats = tuple(dict.fromkeys(c.threat for c in cells if c.threat))

    def radius(self, taken: int) -> float:
        """Returns the share of the radius that an agent is attacked within.

        Args:
            taken: steps since it left the trunk.
        """
        steps = WARM_UP * (self._config.steps - self._config.trunk_steps)
        return min(1.0, (taken + 1) / max(1.0, steps))

    def attacked(
        self,
        inputs: Any,
        answer: Answer,
        roles: Sequence[Role],
        radius: float,
        draw: Callable[[list[Tensor]], list[Tensor]],
    ) -> Any:
        """Returns inputs of which the rows of cells under a threat are attacked.

        Args:
            inputs: parts (k, cells * m, ...).
            answer: of the nets, as they are deployed.
            roles: of the k nets: each says how far its rows are attacked.
            radius: share of each threat's radius.
            draw: returns numbers from [0, 1) of the shapes of parts.
        """
        first = tree.tree_leaves(inputs)[0]
        reach = radius * torch.tensor([role.attack for role in roles])
        for threat in self.threats:
            at, label = self.rows_under(threat, first.shape[1])
            at, label = at.to(first.device), label.to(first.device)

            def part(x: Tensor, at: Tensor = at) -> Tensor:
                return x.index_select(1, at)

            def put(x: Tensor, moved: Tensor, at: Tensor = at) -> Tensor:
                return x.index_copy(1, at, moved)

            ball = Ball(threat, tree.tree_map(part, inputs), reach)
            labels = label.expand(len(roles), -1)
            moved = n_fgsm(answer, labels, ball, draw(ball.centre))
            inputs = tree.tree_map(put, inputs, moved)
        return inputs

    def rows_under(self, threat: Threat, rows: int) -> tuple[Tensor, Tensor]:
        """Returns which of so many rows are under a threat, and their classes."""
        each = rows // len(self._cells)
        cells = [i for i, cell in enumerate(self._cells) if cell.threat == threat]
        at = torch.tensor(cells)[:, None] * each + torch.arange(each)
        outcomes = torch.tensor([self._cells[i].outcome for i in cells])
        return at.flatten(), outcomes.repeat_interleave(each)
