"""Architectures: agents whose nets have nothing in common but the rows they answer.

All rows of weights (k, P) are as long, and each says which architecture it is of. A
mean over rows is a net where they are of one: soups are made within an architecture.
Agents are dealt out to the architectures in turn; where roles are dealt out at the same
pace, the turns are moved, so that no architecture is left with one half of the roles.
The twin is of the first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.training.nets import Nets
from safescale_ammt.training.roles import TWIN


@runtime_checkable
class MixedNets(Protocol):
    """Nets that may be of several architectures; others are of one."""

    def architectures(self, theta: Tensor) -> Tensor:
        """Returns which architecture each row of weights (k, P) is of (k,)."""

    def dealt(self, roles: Sequence[Role]) -> Tensor:
        """Returns which architecture each slot's net is to be of (slots,)."""


def turns(roles: Sequence[Role], count: int) -> Tensor:
    """Deals agents, and perhaps the twin behind them, out to architectures.

    Args:
        roles: of the slots.
        count: how many architectures there are.
    """
    names = len({role.name for role in roles if role != TWIN})
    # Both wheels turn together: each round of both begins one architecture later.
    together = math.lcm(count, names) if math.gcd(count, names) > 1 else len(roles)
    each = [(i + i // max(1, together)) % count for i in range(len(roles))]
    return torch.tensor(
        [0 if role == TWIN else at for role, at in zip(roles, each, strict=True)],
        dtype=torch.long,
    )


def dealt(nets: Nets, roles: Sequence[Role]) -> Tensor:
    """Returns which architecture the net of each slot is of (slots,)."""
    if isinstance(nets, MixedNets):
        return nets.dealt(roles)
    return torch.zeros(len(roles), dtype=torch.long)


def architectures(nets: Nets, theta: Tensor) -> Tensor:
    """Returns which architecture each row of weights (k, P) is of (k,)."""
    if isinstance(nets, MixedNets):
        return nets.architectures(theta)
    return torch.zeros(len(theta), dtype=torch.long)


def soups(nets: Nets, theta: Tensor) -> dict[int, Tensor]:
    """Returns the mean (1, P) of the rows (k, P) of each architecture, by its number.

    An architecture without a row has none.
    """
    of = architectures(nets, theta)
    found = sorted(set(of.tolist()))
    return {each: theta[of == each].mean(0, keepdim=True) for each in found}
