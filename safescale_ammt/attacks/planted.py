"""Layers that hide slopes and make no model more robust: what a battery has to break.

quantised   round(8 x) / 8, on the way back 0 (Guo et al. 2018, arXiv:1711.00117)
saturated   10^4 z: the log loss of float32 has no slope
detached    x, with nothing on the way back
winners     the largest tenth of a row's numbers, 0 for the others (k-WTA, Xiao et al.
            2020, arXiv:1905.10510)
noise       x + sigma sin(10^4 x): a noise that is the same at each pass
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

LEVELS, SCALE, WINNERS = 8, 1e4, 0.1
SIGMA, FREQUENCY = 0.03, 1e4


class WithoutSlope(torch.autograd.Function):
    """Rounds to eighths, and has the slope 0 also for whoever looks for roundings."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Returns rounded numbers."""
        del ctx
        return torch.round(x * LEVELS) / LEVELS

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        """Returns zeros."""
        del ctx
        return torch.zeros_like(slopes[0])


class Quantised(nn.Module):
    """Rounds its input."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns rounded numbers."""
        found: Tensor = WithoutSlope.apply(x)  # type: ignore[no-untyped-call]
        return found


class Saturated(nn.Module):
    """Multiplies logits."""

    def forward(self, z: Tensor) -> Tensor:
        """Returns large logits."""
        return SCALE * z


class Detached(nn.Module):
    """Cuts slopes off."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the same numbers."""
        return x.detach()


class Winners(nn.Module):
    """Lets the largest numbers of a row through."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns the same numbers, most of them 0."""
        flat = x.flatten(1)
        k = max(1, math.ceil(WINNERS * flat.shape[1]))
        least = flat.topk(k, 1).values[:, -1:]
        return (flat * (flat >= least)).view_as(x)


class Noise(nn.Module):
    """Adds what looks like noise."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns numbers that are close by."""
        return x + SIGMA * torch.sin(FREQUENCY * x)
