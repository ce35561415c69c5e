"""State: what a training run would lose if it were killed now, as named tensors.

Every component that changes from step to step (weights, optimizer, multipliers,
averages, random generators, data cursors) returns its state and takes it back. Some
of it has a row per net, and each process holds the rows of its own nets; the rest is
the same in every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from safescale_ammt.training.placement import Placement

Tensors = dict[str, Tensor]
# Prefixes that keep both kinds apart in one file.
_EACH, _COMMON = "each/", "common/"


class Stateful(Protocol):
    """A component of a run that has a state; the names are torch's."""

    def state_dict(self) -> StateDict:
        """Returns the state, of this process' nets."""

    def load_state_dict(self, state: StateDict) -> None:
        """Continues from a state."""


@dataclass(frozen=True)
class StateDict:
    """Named tensors.

    Attributes:
        each: a row per net of this process.
        common: the same in every process.
    """

    each: Tensors = field(default_factory=dict)
    common: Tensors = field(default_factory=dict)

    def gather(self, placement: Placement) -> StateDict:
        """Returns the state with the rows of all nets."""
        # Collectives match by the order of the calls: every process needs the same.
        rows = {name: placement.gather(self.each[name]) for name in sorted(self.each)}
        return StateDict(rows, self.common)

    def select(self, slots: range) -> StateDict:
        """Returns a copy of the state with the rows of some nets."""
        # Training writes in place; a copy keeps the saved state as it was.
        rows = {n: t[slots.start : slots.stop].clone() for n, t in self.each.items()}
        return StateDict(rows, {n: t.clone() for n, t in self.common.items()})

    def flatten(self) -> Tensors:
        """Returns one mapping, ready to be written."""
        # safetensors refuses tensors that are not contiguous.
        each = {_EACH + name: t.contiguous() for name, t in self.each.items()}
        common = {_COMMON + name: t.contiguous() for name, t in self.common.items()}
        return each | common

    @classmethod
    def unflatten(cls, tensors: Mapping[str, Tensor]) -> StateDict:
        """Inverse of `flatten`."""
        return cls(_under(_EACH, tensors), _under(_COMMON, tensors))


def join_states(components: Mapping[str, Stateful]) -> StateDict:
    """Joins the states of several components, each under its name."""
    states = {name: component.state_dict() for name, component in components.items()}
    return StateDict(
        {f"{c}.{n}": t for c, state in states.items() for n, t in state.each.items()},
        {f"{c}.{n}": t for c, state in states.items() for n, t in state.common.items()},
    )


def load_states(components: Mapping[str, Stateful], state: StateDict) -> None:
    """Gives every component its own part of a joined state back."""
    for name, component in components.items():
        prefix = f"{name}."
        component.load_state_dict(
            StateDict(_under(prefix, state.each), _under(prefix, state.common))
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def stack_rows(rows: list[Tensor], like: Tensor) -> Tensor:
    """Stacks rows of equal shape; without any, none of that shape.

    A process whose nets have no such row still takes part in the gathering, with a
    tensor of the right shape and no rows.
    """
    return torch.stack(rows) if rows else like[None][:0]
