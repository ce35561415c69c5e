"""Roles of agents by their public names: what each changes in loss, data or inputs.

A role is a handful of numbers that the training step multiplies in, agent by
agent, so that eight different agents still run as one program. A role whose
numbers are all neutral would be the generalist under another name. The names
are config, so that an unknown one is refused where the file is read.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields

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
        noise: standard deviation of what is added to images in training, in units of
            that of their own values.
        attack: factor on the radius within which its rows are attacked in training,
            where a robust accuracy is promised.
    """

    name: str
    favours: str
    constraint_weight: float = 1.0
    weight_decay: float = 0.0
    balance: float = 0.0
    brier: float = 0.0
    input_drop: float = 0.0
    noise: float = 0.0
    attack: float = 1.0

    def __post_init__(self) -> None:
        """Checks ranges.

        Raises:
            ConfigError: a number that no step could be taken with.
        """
        for key in fields(self)[2:]:
            value = getattr(self, key.name)
            # Chances; the others have no upper end. NaN is in no range.
            most = {"brier": 1.0, "input_drop": 1.0}.get(key.name, sys.float_info.max)
            known = isinstance(value, int | float) and not isinstance(value, bool)
            if not known or not 0 <= value <= most:
                wanted = f"a number in [0, {most:g}]" if most == 1 else "a number >= 0"
                raise ConfigError(
                    f"Role {self.name!r} has {key.name} {value!r}, expected {wanted}."
                )


ROLES = {
    role.name: role
    for role in (
        Role("generalist", "all rows alike"),
        Role("safety", "the constitution: twice the weight", constraint_weight=2.0),
        Role("efficiency", "small weights, hence short codes", weight_decay=0.1),
        Role("minority", "rows of small group x label strata", balance=0.25),
        Role("calibrated", "probabilities that mean what they say", brier=0.5),
        Role(
            "robust",
            "rows with missing or damaged inputs",
            input_drop=0.05,
            attack=1.25,
        ),
    )
}
MODAL_ROLES = {
    role.name: role
    for role in (
        Role("vision", "images, seen through a little noise", noise=0.05),
        Role("language", "text"),
    )
}
"""Roles for data of one kind, which elsewhere act as the generalist."""
_KINDS = {"vision": "images", "language": "text"}


def require_role(name: str) -> None:
    """Refuses a name of `training.agent_specializations` that no agent can take.

    Raises:
        ConfigError: an unknown role.
    """
    known = ROLES | MODAL_ROLES
    if name not in known:
        raise ConfigError(
            f"training.agent_specializations names {name!r}, {one_of(known, name)}."
        )


def acts_as_generalist(name: str, why: str) -> str:
    """Says that a role for data of another kind acts as the generalist."""
    return (
        f"training.agent_specializations names {name!r}, a role for {_KINDS[name]}: "
        f"its agents act as generalists, as {why}."
    )
