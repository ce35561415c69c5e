"""Adam on a matrix: every row is a net with an optimizer state of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from safescale_ammt.training.stateful import Tensors

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam (Kingma & Ba 2015) on the rows of a matrix, with decoupled decay.

    Every row has its own step count: a net that skips a step is afterwards exactly
    what plain Adam would have made of the steps that it took.
    """

    def __init__(self, first: Tensor, second: Tensor, count: Tensor) -> None:
        self.first, self.second, self.count = first, second, count

    @classmethod
    def fresh(cls, theta: Tensor) -> Adam:
        """Returns the state before the first step on theta (k, P)."""
        zeros = torch.zeros_like(theta)
        return cls(zeros, zeros.clone(), torch.zeros(len(theta), 1))

    def select(self, rows: Tensor) -> Adam:
        """Returns a copy of the state of some rows; a row may occur twice."""
        return Adam(self.first[rows], self.second[rows], self.count[rows])

    def put(self, rows: Tensor, part: Adam) -> None:
        """Overwrites the state of some rows."""
        self.first[rows] = part.first
        self.second[rows] = part.second
        self.count[rows] = part.count

    def tensors(self) -> Tensors:
        """Returns the state by name."""
        return dict(vars(self))

    def step(self, theta: Tensor, grad: Tensor, rate: float, decay: Tensor) -> None:
        """Moves theta (k, P) in place, at a learning rate, with decay (k, 1)."""
        self.count += 1
        self.first.lerp_(grad, 1 - _BETA1)
        self.second.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
        root = (1 - _BETA2**self.count).sqrt()
        step = self.first / (self.second.sqrt() / root + _EPSILON)
        theta.mul_(1 - rate * decay)
        theta.sub_(step * (rate / (1 - _BETA1**self.count)))
