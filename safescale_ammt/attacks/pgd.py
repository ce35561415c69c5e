"""Gradient steps on rows: projected ones, and one step from noise.

pgd     projected gradient steps from the rows themselves (Madry et al. 2018,
        arXiv:1706.06083); one step of the whole radius is FGSM (Goodfellow et al.
        2015, arXiv:1412.6572)
        x <- clip(x + stride eps step(grad), ball of x0)
n_fgsm  one step from noise of twice the radius, not clipped to the ball (de Jorge et
        al. 2022, arXiv:2202.01181)
        z ~ U(-2 eps, 2 eps);  x = x0 + z + eps step(grad at x0 + z)

What is attacked answers as it will when it is deployed: no dropout, and batch norm by
the statistics that it has kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as f
from torch.utils import _pytree as tree

from safescale_ammt.attacks.ball import Ball

STEPS, STRIDE = 10, 0.25
"""Steps of the attack that measures, each a quarter of the ball's radius."""
Answer = Callable[[Any], Tensor]
"""Logits (k, B, n_out) of inputs whose parts are (k, B, ...), of k nets' B rows."""


def pgd(
    answer: Answer,
    label: Tensor,
    ball: Ball,
    steps: int = STEPS,
    stride: float = STRIDE,
) -> Any:
    """Returns inputs after projected gradient steps from the rows themselves.

    Args:
        answer: of what is attacked.
        label: class codes (k, B).
        ball: around the rows' inputs, which stay as they are.
        steps: how many.
        stride: length of each, in units of the radius.
    """
    moved = ball.centre
    for _ in range(steps):
        changes = ball.step(slopes(answer, moved, label, ball), stride)
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
