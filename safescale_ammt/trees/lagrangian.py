"""Lagrangian: what a booster descends, as gradient and curvature of each row.

For row i of n with score f_i, p_i = P(y=1 | f_i), weight v_i, Brier share b and the
role's constraint weight c,

    L = sum_i v_i [(1 - b) log loss + 4 b Brier score] + c sum_cells w_cell n / n_cell
        sum_{i in cell} P(outcome of the cell | f_i)

which is n times the Lagrangian of `training.learner`, on all rows at once where a net
sees a draw of them. LightGBM takes a Newton step of it in each leaf. Curvature is kept
above a tenth of the log loss's: a soft rate is not convex.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from safescale_ammt.config.roles import Role

Floats = NDArray[np.float64]
_LEAST = 0.1
"""Least curvature, as a share of the log loss's."""


class Lagrangian:
    """The Lagrangian of one agent on its rows.

    Args:
        label: class codes (n,).
        inside: which row counts in which cell (cells, n).
        outcomes: class whose rate is measured, per cell.
        weight: of each row in the loss (n,), 1 on average.
        role: gives Brier share and constraint weight.
        classes: how many; two have one score.
    """

    def __init__(
        self,
        label: NDArray[np.int64],
        inside: NDArray[np.bool_],
        outcomes: Sequence[int],
        *,
        weight: Floats,
        role: Role,
        classes: int,
    ) -> None:
        self._label, self._weight, self._inside = label, weight, inside
        self._outcomes, self._role, self._classes = outcomes, role, classes
        # A cell without a row here has no rate to pull.
        self._per_row = inside.shape[1] / np.maximum(inside.sum(1), 1)

    def pulls(self, cell_weights: Floats) -> Floats:
        """Returns what each class's chance costs a row (n, classes)."""
        found = np.zeros((len(self._label), self._classes))
        scaled = self._role.constraint_weight * cell_weights * self._per_row
        cells = zip(self._inside, self._outcomes, scaled, strict=True)
        for own, outcome, pull in cells:
            found[own, outcome] += pull
        return found

    def __call__(self, scores: Floats, pulls: Floats) -> tuple[Floats, Floats]:
        """Returns gradient and curvature, in the shape of the scores.

        Args:
            scores: raw scores (n,), of three or more classes (n, classes).
            pulls: `pulls` of the cells' weights.
        """
        if self._classes == 2:
            return self.of_two(expit(scores), pulls[:, 1] - pulls[:, 0])
        chance, b, v = softmax(scores, 1), self._role.brier, self._weight[:, None]
        error = chance.copy()
        error[np.arange(len(error)), self._label] -= 1
        brier = chance * (error - (error * chance).sum(1, keepdims=True))
        # Twice p (1 - p) at two classes, as LightGBM has it: the scores share a shift.
        bend = self._classes / (self._classes - 1) * chance * (1 - chance)
        gradient = v * ((1 - b) * error + 4 * b * brier)
        gradient += chance * (pulls - (pulls * chance).sum(1, keepdims=True))
        return gradient, v * bend

    def of_two(self, chance: Floats, pull: Floats) -> tuple[Floats, Floats]:
        """Returns both for two classes, of chances and pulls of class 1 (n,)."""
        b, v, error = self._role.brier, self._weight, chance - self._label
        slope = chance * (1 - chance)
        gradient = v * ((1 - b) * error + 8 * b * error * slope) + pull * slope
        # Of the Brier score the part that is never negative (Gauss and Newton).
        bend = v * ((1 - b) * slope + 8 * b * slope**2)
        bend += pull * slope * (1 - 2 * chance)
        return gradient, np.maximum(bend, _LEAST * v * slope)
