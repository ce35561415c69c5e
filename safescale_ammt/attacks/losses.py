"""What attacks make larger, from the logits z of a row with label y.

cross_entropy   -log softmax(z / s)_y,  s = max(1, |z_y - max_{i != y} z_i| / 10)
margin          max_{i != y} z_i - z_y
dlr             -(z_y - z_t) / (z_1 - (z_3 + z_4) / 2), z_1 >= z_2 >= ... being the
                sorted logits and t the class that is aimed at (Croce and Hein 2020,
                arXiv:2003.01690, eq. 7)

The scale s is no part of the gradient. Without it the log loss of a row whose logits
are far apart has the gradient 0 in floating point, though the class is easily changed.
Of three classes dlr divides by z_1 - z_3. Of two no quotient of differences depends on
z any more, it is +-1; there dlr is the margin, whose gradient has the direction that a
quotient of any fixed scale would have.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as f

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Loss (B,) of logits (B, classes), labels (B,) and classes that are aimed at (B,)."""
SPAN = 10.0
"""Difference of logits beyond which they are scaled: the slope there is e^-10."""
TINY = 1e-12


def of_class(z: Tensor, codes: Tensor) -> Tensor:
    """Returns the logit of a class in each row (B,)."""
    return z.gather(1, codes[:, None])[:, 0]


def margin(z: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """Returns by how much the best other class is above the label (B,)."""
    del aim
    own = f.one_hot(y, z.shape[1]).bool()
    return z.masked_fill(own, -torch.inf).amax(1) - of_class(z, y)


def cross_entropy(z: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """Returns the log loss of logits that are not too far apart (B,)."""
    scale = (margin(z, y, aim).detach().abs() / SPAN).clamp(min=1)
    return f.cross_entropy(z / scale[:, None], y, reduction="none")


def dlr(z: Tensor, y: Tensor, aim: Tensor) -> Tensor:
    """Returns the targeted ratio of differences of logits (B,)."""
    difference = of_class(z, aim) - of_class(z, y)
    if z.shape[1] == 2:
        return difference
    ordered = z.sort(1, descending=True).values
    third = ordered[:, 2] if z.shape[1] == 3 else ordered[:, 2:4].mean(1)
    return difference / (ordered[:, 0] - third + TINY)
