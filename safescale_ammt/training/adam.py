"""Adam on a matrix: every row is a net with an optimizer state of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from safescale_ammt.training.stateful import Tensors

# The paper's values, which are also torch's.
_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8


class Adam:
    """Adam (Kingma & Ba 2015) on the rows of a matrix, with decoupled decay.

        m <- b1 m + (1 - b1) g;  v <- b2 v + (1 - b2) g^2
        theta <- (1 - rate decay) theta
                 - rate (m / (1 - b1^t)) / (sqrt(v / (1 - b2^t)) + eps)

    Every row has its own step count t: a net that skips a step is afterwards exactly
    what plain Adam would have made of the steps that it took.
    """

    def __init__(self, first: Tensor, second: Tensor, count: Tensor) -> None:
        self.first, self.second, self.count = first, second, count

    @classmethod
    def fresh(cls, theta: Tensor) -> Adam:
        """Returns the state before the first step on theta (k, P)."""
        zeros = torch.zeros_like(theta)
        return cls(zeros, zeros.clone(), torch.zeros(len(theta), 1))

    def step(
        self,
        theta: Tensor,
        grad: Tensor,
        rate: float,
        decay: Tensor,
        active: Tensor | None = None,
    ) -> None:
        """Moves theta (k, P) in place.

        Args:
            theta: weights, a row per net.
            grad: their gradients (k, P).
            rate: learning rate.
            decay: per unit of rate (k, 1).
            active: which nets take the step (k,); None is all.
        """
        if active is not None and not bool(active.all()):
            # By rows and not by a factor 0: a gradient that is NaN stays NaN times 0,
            # and the moments of a net that skips must not decay either.
            rows = active.nonzero()[:, 0]
            part, state = theta[rows], self.select(rows)
            state.step(part, grad[rows], rate, decay[rows])
            theta[rows] = part
            self.put(rows, state)
            return
        self.count += 1
        self.first.lerp_(grad, 1 - _BETA1)
        self.second.mul_(_BETA2).addcmul_(grad, grad, value=1 - _BETA2)
        root = (1 - _BETA2**self.count).sqrt()
        step = self.first / (self.second.sqrt() / root + _EPSILON)
        # The decay comes before the step and apart from the gradient (AdamW).
        theta.mul_(1 - rate * decay)
        theta.sub_(step * (rate / (1 - _BETA1**self.count)))

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
