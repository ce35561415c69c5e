"""Interval bounds: what no change inside an L-inf ball can do to a sequential module.

Each layer takes a middle m and radii r >= 0 of its inputs to those of its outputs
(Gowal et al. 2018, arXiv:1810.12715, section 3):

    linear, convolution    m <- W m + b,    r <- |W| r
    monotone layers        [l, u] <- [h(l), h(u)],    l = m - r, u = m + r

A row is certified where the lower bound of its label's logit is above the upper bound
of every other. That is sufficient and not necessary: rows without a certificate may be
as safe. Products are of the module's own precision; their rounding is not bounded.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as f

from safescale_ammt.constitution.threats import Threat
from safescale_ammt.errors import InputError
from safescale_ammt.model.answers import deployed

Interval = tuple[Tensor, Tensor]
"""Lower and upper bounds of the same shape."""
MONOTONE = (
    *(nn.ReLU, nn.LeakyReLU, nn.Sigmoid, nn.Tanh, nn.MaxPool2d, nn.AvgPool2d),
    *(nn.AdaptiveAvgPool2d, nn.Flatten, nn.Identity, nn.Dropout),
)
"""Layers whose outputs rise with each input, or stay."""


def layers_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yields the layers of a sequential module in their order.

    Raises:
        InputError: a layer has no bounds here; the sentence names it.
    """
    if type(module) is nn.Sequential:
        for part in module:
            yield from layers_of(part)
        return
    known = (nn.Linear, nn.Conv2d, *MONOTONE)
    if type(module) not in known:
        raise InputError(
            f"Interval bounds do not know {type(module).__name__}: certificates are "
            "for torch.nn.Sequential of linear, convolution, ReLU, pool and flatten."
        )
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        raise InputError(
            f"Interval bounds know convolutions padded by zeros, found padding by "
            f"{module.padding_mode}."
        )
    if isinstance(module, nn.LeakyReLU) and module.negative_slope < 0:
        raise InputError("Interval bounds know LeakyReLU with a slope >= 0 alone.")
    yield module


def bounds(module: nn.Module, low: Tensor, high: Tensor) -> Interval:
    """Returns bounds of a module's outputs; they can be differentiated.

    Args:
        module: sequential, `deployed`.
        low: least inputs (B, ...).
        high: greatest inputs, the same shape.

    Raises:
        InputError: a layer has no bounds here.
    """
    for layer in layers_of(module):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            middle, radius = layer((low + high) / 2), (high - low) / 2
            size = layer.weight.abs()
            if isinstance(layer, nn.Linear):
                radius = f.linear(radius, size)
            else:
                radius = f.conv2d(
                    radius,
                    size,
                    None,
                    layer.stride,
                    layer.padding,
                    layer.dilation,
                    layer.groups,
                )
            low, high = middle - radius, middle + radius
        else:
            low, high = layer(low), layer(high)
    return low, high


def certified(module: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """Returns which rows no change inside the threat's ball can answer wrong (B,).

    Args:
        module: sequential, answers a logit for each class, or that of class 1 of two.
        x: rows (B, ...).
        y: labels, class codes (B,).
        threat: in the largest norm.

    Raises:
        InputError: another norm, or a layer without bounds.
    """
    if threat.norm != "linf":
        raise InputError(f"Interval bounds are of the norm linf, found {threat.norm}.")
    low, high = x - threat.eps, x + threat.eps
    if threat.range is not None:
        low, high = low.clamp(*threat.range), high.clamp(*threat.range)
    with deployed(module), torch.no_grad():
        least, most = bounds(module, low, high)
    if least.shape[1] == 1:
        safe = torch.where(y == 1, least[:, 0], -most[:, 0])
        return safe > 0
    own = f.one_hot(y, least.shape[1]).bool()
    others = most.masked_fill(own, -torch.inf).amax(1)
    return least[own] > others
