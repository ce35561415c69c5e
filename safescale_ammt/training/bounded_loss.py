"""Bounded losses of predicted numbers: hard ones that count, soft ones with a slope.

A row's error as a share of the bound B is e = |y - f(x)| / B, of the squared kind
(y - f(x))^2 / B^2; of several numbers a row it is their mean. The hard loss is
min(e, 1). It has no slope beyond the bound, so that training would give up just the
rows that are furthest off. The soft loss is e up to 1 and 1 + log e from there on.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safescale_ammt.constitution.losses import BoundedLoss


def errors(loss: BoundedLoss, out: Tensor, y: Tensor) -> Tensor:
    """Returns each row's error as a share of the bound (...,).

    Args:
        loss: what counts.
        out: predicted numbers (..., n_out).
        y: numbers (..., n_out).
    """
    missed = (out - y) / loss.bound
    return (missed.abs() if loss.kind == "absolute" else missed.square()).mean(-1)


def hard_losses(loss: BoundedLoss, out: Tensor, y: Tensor) -> Tensor:
    """Returns the bounded losses (...,) in [0, 1]; 1 of what is no number."""
    return errors(loss, out, y).nan_to_num(1.0).clamp(max=1.0)


def soft_losses(loss: BoundedLoss, out: Tensor, y: Tensor) -> Tensor:
    """Returns losses (...,) that have a slope beyond the bound, too."""
    found = errors(loss, out, y)
    return torch.where(found <= 1, found, 1 + found.clamp(min=1).log())
