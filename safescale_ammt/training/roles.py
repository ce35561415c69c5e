"""Roles in training: dealt out to the agents, their numbers as columns of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safescale_ammt.config.roles import ROLES, Role

# Without a constraint weight the multipliers do not reach the twin, and in all else
# it is the generalist: the difference between the two is what the promises cost.
TWIN = replace(ROLES["generalist"], name="twin", constraint_weight=0.0)


def assign(roles: Sequence[Role], num_agents: int) -> tuple[Role, ...]:
    """Deals roles out to the agents in turn."""
    return tuple(roles[i % len(roles)] for i in range(num_agents))


@dataclass(frozen=True)
class Traits:
    """The roles' numbers as columns (k,), ready to be multiplied in."""

    constraint_weight: Tensor
    weight_decay: Tensor
    brier: Tensor
    input_drop: Tensor


def traits(roles: Sequence[Role]) -> Traits:
    """Stacks the numbers of k roles."""
    return Traits(
        torch.tensor([r.constraint_weight for r in roles]),
        torch.tensor([r.weight_decay for r in roles]),
        torch.tensor([r.brier for r in roles]),
        torch.tensor([r.input_drop for r in roles]),
    )
