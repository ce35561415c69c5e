"""Robust accuracy: what is left of right answers under an attack in a small ball.

Projected gradient steps (Madry et al. 2018) from the rows themselves, on their log
loss. What an attack does not find may be there all the same: the figure is an upper
bound of the accuracy that every perturbation leaves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as f
from torch.utils import _pytree as tree

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.model.network import predicted
from safescale_ammt.modules.copies import as_columns, call, to_device
from safescale_ammt.modules.form import ModuleForm
from safescale_ammt.modules.rows import ModuleRows

STEPS, STRIDE = 10, 0.25
"""Steps of the attack, each a quarter of the ball's radius."""
ROWS = 1024
"""Most rows that are attacked."""


def robust_accuracy(
    model: ModuleForm, rows: ModuleRows, eps: float, alpha: float
) -> dict[str, Any]:
    """Returns accuracy under attack with its bounds; the reason where there is none.

    Args:
        model: of classes.
        rows: that it was not fitted on.
        eps: radius, in units of the inputs, in the largest norm.
        alpha: level of each bound.
    """
    rows = rows.part(ROWS)
    module = model.module()
    first = next(module.parameters())
    given = rows.batch(torch.arange(len(rows)))
    inputs = to_device(given, first.device, first.dtype)
    leaves, form = tree.tree_flatten(inputs)
    clean = [x for x in leaves if isinstance(x, Tensor) and x.is_floating_point()]
    if len(clean) < len(leaves):
        return {"eps": eps, "reason": "inputs that are no numbers have no small ball"}
    moved, label = [x.clone() for x in clean], rows.y.to(first.device)
    for _ in range(STEPS):
        moved = [x.detach().requires_grad_() for x in moved]
        # A module may write on what it is given, and must not write on these.
        seen = [x.clone() for x in moved]
        out = as_columns(call(module, tree.tree_unflatten(seen, form)))
        slopes = torch.autograd.grad(attack_loss(out, label), moved, allow_unused=True)
        moved = [
            x if s is None else x0 + (x + STRIDE * eps * s.sign() - x0).clamp(-eps, eps)
            for x, x0, s in zip(moved, clean, slopes, strict=True)
        ]
    with torch.no_grad():
        out = as_columns(call(module, tree.tree_unflatten(moved, form)))
    right = int((predicted(out) == label).sum())
    lower, upper = clopper_pearson(right, len(rows), alpha)
    return {
        "eps": eps,
        "attack": f"pgd-{STEPS}, linf",
        "rows": len(rows),
        "accuracy": right / len(rows),
        "lower": lower,
        "upper": upper,
    }


def attack_loss(out: Tensor, label: Tensor) -> Tensor:
    """Returns what an attack makes larger: the log loss."""
    if out.shape[1] > 1:
        return f.cross_entropy(out, label)
    return f.binary_cross_entropy_with_logits(out[:, 0], label.to(out.dtype))
