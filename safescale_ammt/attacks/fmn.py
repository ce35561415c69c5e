"""FMN: the least change that makes an answer wrong.

Pintor et al. 2021, arXiv:2102.12827, algorithm 1. With L = z_y - max_{i != y} z_i,
right while L > 0, d the change and q the dual norm:

    right, none wrong yet      eps <- |d|_p + L / |grad L|_q
    right, one wrong before    eps <- eps (1 + gamma)
    wrong                      eps <- min(eps (1 - gamma), |best d|_p)
    d <- d - alpha grad L / |grad L|_2, projected to |d|_p <= eps and into the range

alpha goes from 1 to .01, gamma from .05 to .0001, both by half a cosine. The distance
is infinite where no wrong answer was met, which can be where steps end a rounding short
of the border again and again, and 0 only where the row itself is answered
wrong.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from safescale_ammt.attacks.attempt import Attempt, rowwise
from safescale_ammt.attacks.losses import margin

ALPHA, GAMMA = (1.0, 0.01), (0.05, 0.0001)
"""Step and change of the radius, at the first step and at the last."""


def cosine(ends: tuple[float, float], share: float) -> float:
    """Returns what lies between two ends by half a cosine."""
    return ends[1] + (ends[0] - ends[1]) * (1 + math.cos(math.pi * share)) / 2


def minimum_norm(attempt: Attempt, steps: int) -> tuple[Tensor, Tensor]:
    """Returns the nearest points that are answered wrong, and how far they are.

    Args:
        attempt: the rows; of its threat only norm and range matter.
        steps: of the algorithm.

    Returns:
        Points (B, ...), the rows themselves where none was found; distances (B,).
    """
    norm, inside = attempt.ball.threat.norm, attempt.ball.threat.range
    centre, y = attempt.ball.centre, attempt.y
    x, best = centre, centre
    distance = torch.full(y.shape, torch.inf, dtype=x.dtype, device=x.device)
    radius = distance
    for k in range(steps + 1):
        value, wrong, slope = loss_and_slope(attempt, x)
        length = attempt.ball.lengths(x)
        nearer = wrong & (length < distance)
        best = torch.where(rowwise(nearer, x), x, best)
        distance = torch.where(nearer, length, distance)
        if k == steps:
            break
        gamma = cosine(GAMMA, k / steps)
        dual = slope.flatten(1).norm(p=1 if norm == "linf" else 2, dim=1)
        estimate = torch.where(dual > 0, length + value / dual, torch.inf)
        outward = torch.where(distance.isinf(), estimate, radius * (1 + gamma))
        inward = torch.minimum(radius * (1 - gamma), distance)
        radius = torch.where(wrong, inward, outward)
        size = rowwise(slope.flatten(1).norm(dim=1), x)
        unit = torch.where(size > 0, slope / size, 0.0)
        moved = x - cosine(ALPHA, k / steps) * unit
        x = within(moved, centre, radius, norm, inside)
    return best, distance


def within(
    x: Tensor,
    centre: Tensor,
    radius: Tensor,
    norm: str,
    inside: tuple[float, float] | None,
) -> Tensor:
    """Returns rows projected to balls of their own radii (B,), then into a range."""
    change = x - centre
    if norm == "linf":
        bound = rowwise(radius, x)
        change = torch.minimum(torch.maximum(change, -bound), bound)
    else:
        length = change.flatten(1).norm(dim=1)
        ratio = torch.where(length > radius, radius / length, 1.0)
        change = change * rowwise(ratio, x)
    moved = centre + change
    return moved if inside is None else moved.clamp(*inside)


def loss_and_slope(attempt: Attempt, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns L (B,), which rows are wrong (B,), and the gradient of L (B, ...)."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits, codes = attempt.target.answer(x)
        value = -margin(logits, attempt.y, attempt.y)
        found = None
        if value.requires_grad:
            (found,) = torch.autograd.grad(value.sum(), x, allow_unused=True)
    slope = torch.zeros_like(x) if found is None else found.nan_to_num(0.0, 0.0, 0.0)
    return value.detach(), codes != attempt.y, slope


def fmn(attempt: Attempt, steps: int) -> Tensor:
    """Returns the nearest wrong points where they are inside the threat's ball.

    Elsewhere the point is the row itself: nothing was found there.
    """
    found, distance = minimum_norm(attempt, steps)
    near = distance <= attempt.ball.threat.eps
    found = torch.where(rowwise(near, found), found, attempt.ball.centre)
    # The length of a change is rounded, and so is its bound.
    return attempt.ball.project(found)
