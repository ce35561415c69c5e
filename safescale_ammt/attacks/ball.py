"""The ball that a threat allows around rows: steps, noise and projections in it.

step(g) = sign(g) in the largest norm and g / |g| in the Euclidean one, whose length is
that of all numbers of a row together.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as tree

from safescale_ammt.constitution.threats import Threat

NOISE = 2.0
"""Length of the noise before a single step, in units of the radius."""
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

    def step(self, slopes: list[Tensor], stride: float | Tensor) -> list[Tensor]:
        """Returns changes of a length, in units of the radius, along slopes.

        Args:
            slopes: of the parts of rows.
            stride: the length, one for all rows or shaped like each part.
        """
        if self._threat.norm == "linf":
            units = [slope.sign() for slope in slopes]
        else:
            lengths = self.lengths(slopes)
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
            lengths = self.lengths(spread)
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
            each = zip(changes, self._radii, self.lengths(changes), strict=True)
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

    def lengths(self, parts: list[Tensor]) -> list[Tensor]:
        """Returns the length of each row's parts together, shaped like each part."""
        rows = parts[0].shape[:2]
        # A part may be one number, and rows none.
        squares = [p.square()[..., None].flatten(2).sum(-1) for p in parts]
        length = torch.stack(squares).sum(0).sqrt()
        return [length.view(*rows, *[1] * (p.dim() - 2)) for p in parts]
