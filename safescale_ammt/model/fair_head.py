"""Fair head: a group-blind correction of scores, as the predictor applies it.

To shift a group's rate, the Lagrangian-optimal classifier moves the decision of a
row by the chance that the row belongs to the group, so it needs no group when it
answers (the post-processing module of FRAPPE, Tifrea et al. 2024, in the closed
form of Menon & Williamson 2018). With eta = P(y=1 | x), cells c = (group a,
condition) of weight w_c and q_c = P(a | x, condition):

    score = eta - 1/2 sum_c w_c kappa_c(eta) q_c(x) / P(c)

kappa is eta for rates among positives, 1 - eta among negatives and 1 for all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Part:
    """The correction of one group column under one condition.

    Attributes:
        condition: True: positives, False: negatives, None: all rows.
        weight: of the logistic model of the group (d, groups).
        bias: (groups,).
        shift: w_c / P(c) per group (groups,).
    """

    condition: bool | None
    weight: Tensor
    bias: Tensor
    shift: Tensor

    def pull(self, x: Tensor, eta: Tensor) -> Tensor:
        """Returns kappa(eta) sum_a shift_a q_a(x), (n,)."""
        # Fitted in float32, applied in the predictor's float64.
        weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
        chance = torch.softmax(torch.addmm(bias, x, weight), 1)
        kappa = {True: eta, False: 1 - eta, None: torch.ones_like(eta)}[self.condition]
        return kappa * (chance @ self.shift.to(x.dtype))


@dataclass(frozen=True)
class FairHead:
    """All parts of a correction."""

    parts: tuple[Part, ...]

    def correct(self, x: Tensor, eta: Tensor) -> Tensor:
        """Returns corrected scores (n,) in [0, 1] of encoded rows (n, d)."""
        pull = torch.zeros_like(eta)
        for part in self.parts:
            pull = pull + part.pull(x, eta)
        # The correction may leave [0, 1]; clamped, it is a score and not a chance.
        return (eta - pull / 2).clamp(0, 1)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the tensors to store, by name."""
        return {
            f"{i}.{name}": getattr(part, name).contiguous()
            for i, part in enumerate(self.parts)
            for name in ("weight", "bias", "shift")
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form; tensors are stored apart."""
        return {"conditions": [part.condition for part in self.parts]}

    @classmethod
    def from_dict(
        cls, raw: Mapping[str, Any], tensors: Mapping[str, Tensor]
    ) -> FairHead:
        """Joins the JSON form with its tensors."""
        return cls(
            tuple(
                Part(
                    condition,
                    *(tensors[f"{i}.{name}"] for name in ("weight", "bias", "shift")),
                )
                for i, condition in enumerate(raw["conditions"])
            )
        )
