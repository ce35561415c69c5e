"""An attempt: what every attack is given, and rows of one tensor in their ball.

An attack is a function of an attempt that returns a point for each row (B, ...), inside
the ball and the range. Whether a point is answered wrong is found by whoever asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from safescale_ammt.attacks.ball import Ball
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.model.answers import as_columns
from safescale_ammt.model.network import predicted

NOWHERE = -1
"""Class of an answer that is no number: it is right for no label."""


class Classifier:
    """A frozen module of classes that answers rows of one tensor.

    Args:
        module: answers a batch with logits: a column for each class, or one column,
            the logit of class 1 of two. It has to be `deployed` by the caller.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def answer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits (B, classes) and the classes (B,) that they decide for.

        Args:
            x: rows (B, ...); gradients flow back to them where they are asked for.
        """
        # A module may write on what it is given, and must not write on these.
        out = as_columns(self.module(x.clone()))
        out = out if out.dtype == torch.float64 else out.float()
        codes = predicted(out.detach())
        finite = out.detach().isfinite().all(1)
        codes = torch.where(finite, codes, NOWHERE)
        return (torch.cat([-out, out], 1) / 2 if out.shape[1] == 1 else out), codes

    def codes(self, x: Tensor) -> Tensor:
        """Returns the classes (B,) that rows are answered with."""
        with torch.no_grad():
            return self.answer(x)[1]


def rowwise(values: Tensor, like: Tensor) -> Tensor:
    """Returns numbers of rows (B,) in a shape that multiplies rows (B, ...)."""
    return values.view(-1, *[1] * (like.dim() - 1))


class RowBall:
    """The ball around rows of one tensor.

    Args:
        threat: norm, radius and range.
        centre: the rows (B, ...).
    """

    def __init__(self, threat: Threat, centre: Tensor) -> None:
        self.threat, self.centre = threat, centre
        self._ball = Ball(threat, centre[None], torch.ones(1))

    def moved(self, x: Tensor, slopes: Tensor, stride: Tensor | float) -> Tensor:
        """Returns rows after a step of so many radii along slopes, projected."""
        if isinstance(stride, Tensor):
            stride = rowwise(stride, x)[None]
        (change,) = self._ball.step([slopes[None]], stride)
        return self.project(x + change[0])

    def project(self, x: Tensor) -> Tensor:
        """Returns the nearest rows inside the ball, and inside the range."""
        return self._ball.project([x[None]])[0][0]

    def start(self, generator: torch.Generator) -> Tensor:
        """Returns points drawn in the ball; of the Euclidean one on its surface."""
        drawn = torch.rand(self.centre.shape, generator=generator) * 2 - 1
        if self.threat.norm == "l2":
            drawn = torch.randn(self.centre.shape, generator=generator)
            drawn = drawn / rowwise(drawn.flatten(1).norm(dim=1), drawn)
        return self.project(self.centre + self.threat.eps * drawn.to(self.centre))

    def lengths(self, x: Tensor) -> Tensor:
        """Returns how far rows (B, ...) have moved, in the threat's norm (B,)."""
        changes = (x - self.centre).flatten(1)
        if self.threat.norm == "l2":
            length: Tensor = torch.linalg.vector_norm(changes, dim=1)
            return length
        return changes.abs().amax(1)


@dataclass(frozen=True)
class Attempt:
    """Rows that are attacked.

    Attributes:
        target: answers them.
        ball: around them.
        y: their labels, class codes (B,).
        generator: what the attack draws from, on the processor, so that every device
            is given the same numbers.
        aims: other classes (B, classes - 1) of each row, the likeliest first.
    """

    target: Classifier
    ball: RowBall
    y: Tensor
    generator: torch.Generator
    aims: Tensor

    @classmethod
    def of(
        cls,
        target: Classifier,
        x: Tensor,
        y: Tensor,
        threat: Threat,
        generator: torch.Generator,
    ) -> Attempt:
        """Asks the target for the order of the classes."""
        with torch.no_grad():
            logits = target.answer(x)[0]
        own = nn.functional.one_hot(y, logits.shape[1]).bool()
        order = logits.masked_fill(own, -torch.inf).argsort(1, descending=True)
        aims = order[:, : logits.shape[1] - 1]
        return cls(target, RowBall(threat, x), y, generator, aims)

    def part(self, at: Tensor) -> Attempt:
        """Returns the attempt of some of the rows, by their numbers."""
        ball = RowBall(self.ball.threat, self.ball.centre[at])
        return replace(self, ball=ball, y=self.y[at], aims=self.aims[at])

    def survivors(self, found: Tensor) -> Tensor:
        """Returns which rows are answered right at points (B, ...), their numbers."""
        return (self.target.codes(found) == self.y).nonzero()[:, 0]


Attack = Callable[[Attempt], Tensor]
