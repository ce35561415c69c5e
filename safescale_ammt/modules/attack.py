"""Attacks: how the inputs of rows are changed, inside a threat, to be answered wrong.

pgd     projected gradient steps from the rows themselves (Madry et al. 2018,
        arXiv:1706.06083)
        x <- clip(x + stride eps step(grad), ball of x0)
n_fgsm  one step from noise of twice the radius, not clipped to the ball (de Jorge et
        al. 2022, arXiv:2202.01181)
        z ~ U(-2 eps, 2 eps);  x = x0 + z + eps step(grad at x0 + z)

With step(g) = sign(g) in the largest norm and g / |g| in the Euclidean one, whose
length is that of all numbers of a row together. What is attacked answers as it will
when it is deployed: no dropout, and batch norm by the statistics that it has kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as f
from torch.utils import _pytree as tree

from safescale_ammt.constitution.threats import Threat
from safescale_ammt.modules.copies import statistics_as

STEPS, STRIDE = 10, 0.25
"""Steps of the attack that measures, each a quarter of the ball's radius."""
NOISE = 2.0
"""Length of the noise before a single step, in units of the radius."""
Answer = Callable[[Any], Tensor]
"""Logits (k, B, n_out) of inputs whose parts are (k, B, ...), of k nets' B rows."""
UNATTACKABLE = "inputs that are no numbers have no small ball"


def attackable(inputs: Any) -> bool:
    """Tells whether every part of inputs is a tensor of numbers with a point."""
    parts = tree.tree_leaves(inputs)
    return all(isinstance(x, Tensor) and x.is_floating_point() for x in parts)


class Ball:
    """What a threat allows of the inputs of rows.

    Args:
        threat: norm, radius and range.
        inputs: of k nets' rows; every part (k, B, ...), numbers with a point.
        reach: factor on the radius of each net (k,), or one for all (1,).
    """

    def __init__(self, threat: Threat, inputs: Any, reach: Tensor) -> None:
        self._threat = threat
        self.centre, self.form = tree.tree_flatten(inputs)
        self._radii = [
            (threat.eps * reach.to(x)).view(-1, *[1] * (x.dim() - 1))
            for x in self.centre
        ]

    def step(self, slopes: list[Tensor], stride: float) -> list[Tensor]:
        """Returns changes of a length, in units of the radius, along slopes."""
        if self._threat.norm == "linf":
            units = [slope.sign() for slope in slopes]
        else:
            lengths = self._lengths(slopes)
            # No slope at all is no direction.
            units = [
                torch.where(length > 0, slope / length, 0.0)
                for slope, length in zip(slopes, lengths, strict=True)
            ]
        each = zip(self._radii, units, strict=True)
        return [stride * radius * unit for radius, unit in each]

    def noise(self, uniform: list[Tensor]) -> list[Tensor]:
        """Returns changes of up to `NOISE` radii, made of draws from [0, 1)."""
        spread = [2 * draw - 1 for draw in uniform]
        if self._threat.norm == "l2":
            # A direction of length 1 at most: of many numbers nearly always just 1.
            lengths = self._lengths(spread)
            spread = [s / n.clamp(min=1) for s, n in zip(spread, lengths, strict=True)]
        each = zip(self._radii, spread, strict=True)
        return [NOISE * radius * part for radius, part in each]

    def project(self, moved: list[Tensor]) -> list[Tensor]:
        """Returns the nearest inputs inside the ball, and inside the range."""
        changes = [x - x0 for x, x0 in zip(moved, self.centre, strict=True)]
        if self._threat.norm == "linf":
            changes = [
                change.clamp(-radius, radius)
                for change, radius in zip(changes, self._radii, strict=True)
            ]
        else:
            each = zip(changes, self._radii, self._lengths(changes), strict=True)
            changes = [
                torch.where(length > radius, change * (radius / length), change)
                for change, radius, length in each
            ]
        return self.inside(changes)

    def inside(self, changes: list[Tensor]) -> list[Tensor]:
        """Returns the inputs with changes, no further outside the range than before."""
        moved = [x0 + change for x0, change in zip(self.centre, changes, strict=True)]
        if self._threat.range is None:
            return moved
        low, high = self._threat.range
        return [
            torch.maximum(torch.minimum(x, x0.clamp(min=high)), x0.clamp(max=low))
            for x, x0 in zip(moved, self.centre, strict=True)
        ]

    def _lengths(self, parts: list[Tensor]) -> list[Tensor]:
        """Returns the length of each row's parts together, shaped like each part."""
        rows = parts[0].shape[:2]
        # A part may be one number, and rows none.
        squares = [p.square()[..., None].flatten(2).sum(-1) for p in parts]
        length = torch.stack(squares).sum(0).sqrt()
        return [length.view(*rows, *[1] * (p.dim() - 2)) for p in parts]


def pgd(answer: Answer, label: Tensor, ball: Ball) -> Any:
    """Returns inputs after `STEPS` projected gradient steps from the rows themselves.

    Args:
        answer: of what is attacked.
        label: class codes (k, B).
        ball: around the rows' inputs, which stay as they are.
    """
    moved = ball.centre
    for _ in range(STEPS):
        changes = ball.step(slopes(answer, moved, label, ball), STRIDE)
        moved = ball.project([x + c for x, c in zip(moved, changes, strict=True)])
    return tree.tree_unflatten(moved, ball.form)


def n_fgsm(answer: Answer, label: Tensor, ball: Ball, uniform: list[Tensor]) -> Any:
    """Returns inputs after one step from noise, which may end outside the ball.

    Args:
        answer: of what is attacked.
        label: class codes (k, B).
        ball: around the rows' inputs.
        uniform: draws from [0, 1) of the inputs' shapes.
    """
    noise = ball.noise(uniform)
    changes = ball.step(slopes(answer, ball.inside(noise), label, ball), 1.0)
    both = [n + change for n, change in zip(noise, changes, strict=True)]
    return tree.tree_unflatten(ball.inside(both), ball.form)


def slopes(
    answer: Answer, moved: list[Tensor], label: Tensor, ball: Ball
) -> list[Tensor]:
    """Returns the slopes of the rows' log loss; 0 of what no answer depends on."""
    moved = [x.detach().requires_grad_() for x in moved]
    # A module may write on what it is given, and must not write on these.
    seen = [x.clone() for x in moved]
    with torch.enable_grad():
        out = answer(tree.tree_unflatten(seen, ball.form))
        loss = attack_loss(out.flatten(0, -2), label.flatten())
        if not loss.requires_grad:
            return [torch.zeros_like(x) for x in moved]
        found = torch.autograd.grad(loss, moved, allow_unused=True)
    each = zip(found, moved, strict=True)
    return [torch.zeros_like(x) if s is None else s for s, x in each]


def attack_loss(out: Tensor, label: Tensor) -> Tensor:
    """Returns what an attack makes larger: the log loss."""
    if out.shape[1] > 1:
        return f.cross_entropy(out, label)
    return f.binary_cross_entropy_with_logits(out[:, 0], label.to(out.dtype))


@contextmanager
def deployed(module: nn.Module) -> Iterator[None]:
    """Lets a module answer as it will when it is deployed, all its layers."""
    layers = list(module.modules())
    # cuDNN has gradients of recurrent layers in training only, which they differ from
    # in nothing but dropout.
    modes = [isinstance(m, nn.RNNBase) and not m.dropout for m in layers]
    with statistics_as(layers, modes):
        yield
