"""Roles: what each one changes in an agent's loss, its data or its inputs.

A role is a handful of numbers that the training step multiplies in, agent by
agent, so that eight different agents still run as one program. A role whose
numbers are all neutral would be the generalist under another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safescale_ammt.errors import ConfigError, one_of


@dataclass(frozen=True)
class Role:
    """What a specialisation favours.

    Attributes:
        name: the public name in `training.agent_specializations`.
        favours: one line for the report.
        constraint_weight: factor on the constraint term of the Lagrangian.
        weight_decay: decoupled decay of the weights (AdamW), per unit of rate.
        balance: exponent b: a row is drawn with weight (its stratum's size)^-b,
            strata being group x label; 0 is uniform.
        brier: share of the Brier score in the loss; 0 is log loss alone.
        input_drop: probability that an encoded input is set to 0 in training.
    """

    name: str
    favours: str
    constraint_weight: float = 1.0
    weight_decay: float = 0.0
    balance: float = 0.0
    brier: float = 0.0
    input_drop: float = 0.0


ROLES = {
    role.name: role
    for role in (
        Role("generalist", "all rows alike"),
        Role("safety", "the constitution: twice the weight", constraint_weight=2.0),
        Role("efficiency", "small weights, hence short codes", weight_decay=0.1),
        Role("minority", "rows of small group x label strata", balance=0.25),
        Role("calibrated", "probabilities that mean what they say", brier=0.5),
        Role("robust", "rows with missing or damaged inputs", input_drop=0.05),
    )
}
# Without a constraint weight the multipliers do not reach the twin, and in all else
# it is the generalist: the difference between the two is what the promises cost.
TWIN = replace(ROLES["generalist"], name="twin", constraint_weight=0.0)
_OTHER_MODALITIES = {"vision": "images", "language": "text"}


def assign(specializations: Sequence[str], num_agents: int) -> tuple[Role, ...]:
    """Deals roles out to the agents in turn.

    Raises:
        ConfigError: an unknown role, or one that has no meaning for a table.
    """
    for name in specializations:
        if name in _OTHER_MODALITIES:
            raise ConfigError(
                f"training.agent_specializations names {name!r}, a role for "
                f"{_OTHER_MODALITIES[name]}, but the dataset is a table; "
                f"{one_of(ROLES)}."
            )
        if name not in ROLES:
            raise ConfigError(
                f"training.agent_specializations names {name!r}, {one_of(ROLES, name)}."
            )
    return tuple(
        ROLES[specializations[i % len(specializations)]] for i in range(num_agents)
    )


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
