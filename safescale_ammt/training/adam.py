"""Adam on a matrix: every row is a net with an optimizer state of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

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

    Args:
        theta: the weights before the first step (k, P).
        decay: per unit of rate (k, 1).
        stability: gradient norm above which a net skips its step.
    """

    def __init__(
        self, theta: Tensor, decay: Tensor, stability: float = math.inf
    ) -> None:
        self.first = torch.zeros_like(theta)
        self.second = torch.zeros_like(theta)
        self.count = torch.zeros(len(theta), 1, device=theta.device)
        self._decay, self._stability = decay, stability
        self.pace = [1.0] * len(theta)
        """Factor on the learning rate of each row, by the ladder of corrections."""
        self._scale = [1.0] * len(theta)

    def step(self, theta: Tensor, grad: Tensor, rate: float) -> Tensor:
        """Moves theta (k, P) in place by its gradient (k, P), at a learning rate.

        Returns:
            Which nets took the step (k,): those with a finite gradient that is no
            longer than the stability threshold.
        """
        # NaN compares false: a net with a non-finite gradient skips too.
        active: Tensor = (grad.norm(dim=1) <= self._stability).cpu()
        if bool(active.all()):
            self.move(theta, grad, rate)
            return active
        # By rows and not by a factor 0: a gradient that is NaN stays NaN times 0, and
        # the moments of a net that skips must not decay either.
        rows = active.nonzero()[:, 0]
        part, state = theta[rows], self.select(rows, self._decay[rows])
        state.move(part, grad[rows], rate)
        theta[rows] = part
        for name, tensor in self.tensors().items():
            tensor[rows] = state.tensors()[name]
        return active

    def move(self, theta: Tensor, grad: Tensor, rate: float) -> None:
        """Moves all rows of theta (k, P), whatever their gradient is."""
        self.count += 1
        counts = self.count[:, 0].unbind()
        paces = [p * s for p, s in zip(self.pace, self._scale, strict=True)]
        kinds = list(zip(self._decay[:, 0].tolist(), paces, strict=True))
        for decay, pace in dict.fromkeys(kinds):
            at = [
                (i, piece)
                for i, other in enumerate(kinds)
                if other == (decay, pace)
                for piece in self.pieces(i)
            ]
            row, slope, first, second = (
                [whole[i, piece] for i, piece in at]
                for whole in (theta, grad, self.first, self.second)
            )
            count = [counts[i] for i, _ in at]
            # The kernel of `torch.optim.AdamW(fused=True)`: one pass over the memory.
            # The decay comes before the step and apart from the gradient.
            torch._fused_adamw_(
                *(row, slope, first, second, [], count),
                lr=rate * pace,
                beta1=_BETA1,
                beta2=_BETA2,
                weight_decay=decay,
                eps=_EPSILON,
                amsgrad=False,
                maximize=False,
            )

    def pieces(self, i: int) -> Sequence[slice]:
        """Returns which parts of a row are moved by Adam: all of it."""
        del i
        return (slice(None),)

    def select(self, rows: Tensor, decay: Tensor) -> Self:
        """Returns a copy of the state of some rows; a row may occur twice.

        Args:
            rows: row numbers (n,).
            decay: of the copies (n, 1).
        """
        copy = self.of_rows(rows, decay)
        copy.pace = [self.pace[i] for i in rows.tolist()]
        copy.retune(decay, [self._scale[i] for i in rows.tolist()])
        copy.load_tensors({name: t[rows] for name, t in self.tensors().items()})
        return copy

    def of_rows(self, rows: Tensor, decay: Tensor) -> Self:
        """Returns the optimizer of some rows before its first step."""
        del rows
        return type(self)(self.first[:0], decay, self._stability)

    def retune(self, decay: Tensor, scale: Sequence[float]) -> None:
        """Sets decay (k, 1) per unit of rate, and a factor on each row's rate."""
        self._decay, self._scale = decay, [*scale]

    def restart(self, rows: Tensor) -> None:
        """Sets the state of some rows to that before the first step."""
        for tensor in self.tensors().values():
            tensor[rows] = 0

    def tensors(self) -> Tensors:
        """Returns the state by name."""
        return {"first": self.first, "second": self.second, "count": self.count}

    def load_tensors(self, tensors: Tensors) -> None:
        """Continues from a state."""
        self.first, self.second = tensors["first"], tensors["second"]
        self.count = tensors["count"]
