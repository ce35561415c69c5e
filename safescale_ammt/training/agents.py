"""Agents: what each one's role changes in its loss, its data or its inputs.

A role is a handful of numbers that the training step multiplies in, agent by
agent, so that eight different agents still run as one program. A role whose
numbers are all neutral would be the generalist under another name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from safescale_ammt.errors import ConfigError, one_of
from safescale_ammt.training.state import State, stacked


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
TABLE_ROLES = tuple(ROLES)
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
                f"training.agent_specializations names {name!r}, {one_of(ROLES)}."
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


def row_weights(role: Role, strata: Tensor) -> Tensor | None:
    """Returns the weight with which each row is drawn, or None for uniform.

    Args:
        role: whose data view this is.
        strata: group x label code of each row (n,).
    """
    if role.balance == 0:
        return None
    sizes = torch.bincount(strata)[strata].to(torch.float64)
    return sizes**-role.balance


class Order:
    """The order in which one agent sees its rows: pass after pass.

    Every pass is a fresh permutation of the agent's rows; with weights it is a
    draw with replacement of the same length.
    """

    def __init__(self, rows: Tensor, weights: Tensor | None, seed: int) -> None:
        self._rows = rows
        self._weights = weights
        self._generator = torch.Generator().manual_seed(seed)
        self._before = self._generator.get_state()
        self._ahead = rows[:0]

    def take(self, count: int) -> Tensor:
        """Returns the next `count` row numbers."""
        while len(self._ahead) < count:
            self._ahead = torch.cat([self._ahead, self._next_pass()])
        taken, self._ahead = self._ahead[:count], self._ahead[count:]
        return taken

    def cursor(self) -> Tensor:
        """Returns where the order is: the last pass' generator, the rows left."""
        left = len(self._ahead)
        generator = self._before if left else self._generator.get_state()
        return torch.cat([torch.tensor([left]).view(torch.uint8), generator])

    def seek(self, cursor: Tensor) -> None:
        """Goes on from a cursor."""
        left, self._before = int(cursor[:8].view(torch.long)), cursor[8:].clone()
        self._generator.set_state(self._before)
        rows = self._next_pass() if left else self._rows
        self._ahead = rows[len(rows) - left :]

    def _next_pass(self) -> Tensor:
        n = len(self._rows)
        self._before = self._generator.get_state()
        if self._weights is None:
            return self._rows[torch.randperm(n, generator=self._generator)]
        # Inverse of the cumulative weights: `multinomial` stops at 2^24 rows.
        edges = self._weights.cumsum(0)
        draws = torch.rand(n, generator=self._generator, dtype=torch.float64)
        places = torch.searchsorted(edges, draws * edges[-1], right=True)
        return self._rows[places.clamp_(max=n - 1)]


class Orders:
    """The orders of this process' nets, side by side."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self._orders = orders

    def deal(self, count: int) -> Tensor:
        """Returns the next rows of every net, (nets, count)."""
        return torch.stack([order.take(count) for order in self._orders])

    def state(self) -> State:
        """Returns every net's cursor."""
        cursors = [order.cursor() for order in self._orders]
        return State(each={"cursor": stacked(cursors, torch.zeros(0))})

    def restore(self, state: State) -> None:
        """Goes on from the cursors."""
        for order, cursor in zip(self._orders, state.each["cursor"], strict=True):
            order.seek(cursor)


def stratified_folds(strata: Tensor, folds: int, seed: int) -> Tensor:
    """Deals rows into folds so that every stratum is spread evenly.

    Returns:
        Fold number (n,) of each row; sizes differ by at most one row in all and
        within each stratum.
    """
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(strata), generator=generator)
    dealt = shuffled[torch.argsort(strata[shuffled], stable=True)]
    found = torch.empty(len(strata), dtype=torch.long)
    found[dealt] = torch.arange(len(strata)) % folds
    return found
