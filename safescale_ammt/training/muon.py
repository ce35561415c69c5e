"""Muon on a matrix of nets: the weight matrices of each move by orthogonal steps.

    m <- mu m + (1 - mu) g;   u = mu m + (1 - mu) g
    W <- (1 - rate decay) W - rate .2 sqrt(max(rows, columns)) orthogonal(u)

orthogonal(u) is u with its singular values brought near 1, by `STEPS` steps of a
Newton-Schulz iteration (Jordan et al. 2024). The factor makes steps about as long as
those of Adam (Liu et al. 2025, arXiv:2502.16982, equation 4), so that one learning rate
serves both: whatever is no matrix is moved by `adam`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

from torch import Tensor

from safescale_ammt.training.adam import Adam

STEPS = 3
"""Newton-Schulz steps: two more cost half as much again, and change no accuracy."""
MOMENTUM = 0.9
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of a quintic that is steep at 0 and stays near 1 (Jordan et al. 2024)."""
_EPSILON = 1e-7


class Matrix(NamedTuple):
    """Where a weight matrix lies in the row of a net.

    Attributes:
        start: its first column.
        rows: of the matrix.
        columns: of the matrix.
    """

    start: int
    rows: int
    columns: int

    @property
    def piece(self) -> slice:
        """Its columns of the row."""
        return slice(self.start, self.start + self.rows * self.columns)


def matrices_of(layout: Sequence[tuple[bool, Sequence[int]]]) -> tuple[Matrix, ...]:
    """Returns where the matrices lie of tensors that follow one another in a row.

    Args:
        layout: of each tensor whether Muon may move it, and its shape; one of more
            axes than two is a matrix of its first axis.
    """
    found, start = [], 0
    for moved, shape in layout:
        size = math.prod(shape)
        if moved and len(shape) > 1 and min(shape[0], size // max(shape[0], 1)) > 1:
            found.append(Matrix(start, shape[0], size // shape[0]))
        start += size
    return tuple(found)


class Muon(Adam):
    """Muon (Jordan et al. 2024) for the matrices of each row, Adam for the rest.

    Args:
        theta: the weights before the first step (k, P).
        decay: per unit of rate (k, 1).
        stability: gradient norm above which a net skips its step.
        matrices: of each row.
    """

    def __init__(
        self,
        theta: Tensor,
        decay: Tensor,
        stability: float = math.inf,
        matrices: Sequence[tuple[Matrix, ...]] = (),
    ) -> None:
        super().__init__(theta, decay, stability)
        self._matrices = matrices

    def move(self, theta: Tensor, grad: Tensor, rate: float) -> None:
        """Moves all rows of theta (k, P), whatever their gradient is."""
        # What is no matrix, and the count of steps.
        super().move(theta, grad, rate)
        decays = self._decay[:, 0].tolist()
        for i, matrices in enumerate(self._matrices):
            own = rate * self.pace[i] * self._scale[i]
            for at in matrices:
                # A net by itself: a stacked product may round by how many there are.
                slope, first = grad[i, at.piece], self.first[i, at.piece]
                first.lerp_(slope, 1 - MOMENTUM)
                ahead = slope.lerp(first, MOMENTUM).view(at.rows, at.columns)
                step = orthogonal(ahead).flatten()
                length = 0.2 * math.sqrt(max(at.rows, at.columns))
                weights = theta[i, at.piece]
                # The decay is apart from the gradient, as Adam's is here.
                weights.mul_(1 - own * decays[i]).add_(step, alpha=-own * length)

    def pieces(self, i: int) -> Sequence[slice]:
        """Returns the parts of a row between its matrices."""
        ends = [(0, 0)]
        ends += [(at.piece.start, at.piece.stop) for at in self._matrices[i]]
        ends.append((self.first.shape[1], 0))
        between = [slice(own[1], after[0]) for own, after in pairwise(ends)]
        return [piece for piece in between if piece.start < piece.stop]

    def of_rows(self, rows: Tensor, decay: Tensor) -> Self:
        """Returns the optimizer of some rows before its first step."""
        matrices = [self._matrices[i] for i in rows.tolist()]
        return type(self)(self.first[:0], decay, self._stability, matrices)


def orthogonal(matrix: Tensor) -> Tensor:
    """Brings the singular values of a matrix near 1 (rows, columns)."""
    a, b, c = _COEFFICIENTS
    # The square of the shorter side is smaller.
    tall = matrix.shape[0] > matrix.shape[1]
    x: Tensor = matrix.T if tall else matrix
    # The iteration begins with no singular value above 1.
    x = x / (x.norm() + _EPSILON)
    for _ in range(STEPS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
