"""State: what a training run would lose if it were killed now, as named tensors.

Every part that changes from step to step (weights, optimizer, duals, averages,
random generators, data cursors) gives its state and takes it back. Some of it has
a row per net, and each process holds the rows of its own nets; the rest is the
same in every process.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from safescale_ammt.training.placement import Placement

Tensors = dict[str, Tensor]
_EACH, _COMMON = "each/", "common/"


@dataclass(frozen=True)
class StateDict:
    """Named tensors.

    Attributes:
        each: a row per net of this process.
        common: the same in every process.
    """

    each: Tensors = field(default_factory=dict)
    common: Tensors = field(default_factory=dict)

    def gathered(self, placement: Placement) -> StateDict:
        """Returns the state with the rows of all nets."""
        every = {name: placement.gather(self.each[name]) for name in sorted(self.each)}
        return StateDict(every, self.common)

    def of(self, mine: range) -> StateDict:
        """Returns the state with the rows of some nets."""
        rows = {n: t[mine.start : mine.stop].clone() for n, t in self.each.items()}
        return StateDict(rows, {n: t.clone() for n, t in self.common.items()})

    def flat(self) -> Tensors:
        """Returns one mapping, ready to be written."""
        each = {_EACH + name: t.contiguous() for name, t in self.each.items()}
        common = {_COMMON + name: t.contiguous() for name, t in self.common.items()}
        return each | common

    @classmethod
    def from_flat(cls, tensors: Mapping[str, Tensor]) -> StateDict:
        """Takes what `flat` returned apart."""
        return cls(_under(_EACH, tensors), _under(_COMMON, tensors))


class Stateful(Protocol):
    """A part of a run that has a state."""

    def state_dict(self) -> StateDict:
        """Returns the state, of this process' nets."""

    def load_state_dict(self, state: StateDict) -> None:
        """Takes up where the state was taken."""


def together(parts: Mapping[str, Stateful]) -> StateDict:
    """Joins the states of several parts, each under its name."""
    states = {name: part.state_dict() for name, part in parts.items()}
    return StateDict(
        {f"{p}.{n}": t for p, s in states.items() for n, t in s.each.items()},
        {f"{p}.{n}": t for p, s in states.items() for n, t in s.common.items()},
    )


def apart(parts: Mapping[str, Stateful], state: StateDict) -> None:
    """Gives every part its own state back."""
    for name, part in parts.items():
        mine = f"{name}."
        part.load_state_dict(
            StateDict(_under(mine, state.each), _under(mine, state.common))
        )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> Tensors:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def stacked(rows: list[Tensor], like: Tensor) -> Tensor:
    """Stacks rows of equal shape; without any, none of that shape."""
    return torch.stack(rows) if rows else like[None][:0]
