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

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.model.arithmetic import Floats, Product, exact, in_order, softmax

Array = NDArray[np.float32]


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
    weight: Array
    bias: Array
    shift: Array

    def pull(
        self, x: Floats, eta: Floats, multiplied: Callable[[Floats], Product]
    ) -> Floats:
        """Returns kappa(eta) sum_a shift_a q_a(x), (n,); groups in their order."""
        # Fitted in float32, applied in the predictor's float64.
        weight, bias, shift = (
            np.asarray(part, np.float64)
            for part in (self.weight, self.bias, self.shift)
        )
        chance = softmax(multiplied(weight)(x) + bias)
        kappa = {True: eta, False: 1 - eta, None: np.ones_like(eta)}[self.condition]
        return kappa * in_order(chance * shift)


@dataclass(frozen=True)
class FairHead:
    """All parts of a correction."""

    parts: tuple[Part, ...]

    def correct(
        self, x: Floats, eta: Floats, multiplied: Callable[[Floats], Product] = exact
    ) -> Floats:
        """Returns corrected scores (n,) in [0, 1] of encoded rows (n, d).

        Args:
            x: encoded rows.
            eta: scores (n,).
            multiplied: how a matrix multiplies rows.
        """
        pull = np.zeros_like(eta)
        for part in self.parts:
            pull = pull + part.pull(x, eta, multiplied)
        # The correction may leave [0, 1]; clamped, it is a score and not a chance.
        return np.clip(eta - pull / 2, 0.0, 1.0)

    def tensors(self) -> dict[str, Array]:
        """Returns the tensors to store, by name."""
        return {
            f"{i}.{name}": np.ascontiguousarray(getattr(part, name))
            for i, part in enumerate(self.parts)
            for name in ("weight", "bias", "shift")
        }

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON form; tensors are stored apart."""
        return {"conditions": [part.condition for part in self.parts]}

    @classmethod
    def from_dict(
        cls, raw: Mapping[str, Any], tensors: Mapping[str, Array]
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
