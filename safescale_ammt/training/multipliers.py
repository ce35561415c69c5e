"""Multipliers: what a constraint aims at, and how its multiplier gets there.

nuPI (Sohrabi et al. 2024, arXiv:2406.04558), a PI controller on the violation e:

    xi_t = nu xi_{t-1} + (1 - nu) e_t
    lambda_{t+1} = max(0, lambda_t + kappa_i e_t + kappa_p (xi_t - xi_{t-1}))
"""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.data.counts import Counts
from safescale_ammt.training.constraints import Cell, Constraints

POWER = 0.9
"""Chance that a model steered to its target passes the gate, by the margin."""


def targets(
    constraints: Constraints,
    constitution: Constitution,
    counts: Counts,
    rates: Tensor,
    behind: Tensor,
) -> Tensor:
    """Returns the gap that each pair aims at (pairs,).

    target = tau - (z_{1-alpha_k} + z_.9) se, clipped to [0, tau]. se^2 adds what
    the pair's difference varies by at the sealed counts and at the counts behind
    the pooled rates that steer training: a model that is steered to the target
    passes the gate about nine times in ten.

    Args:
        constraints: the pairs.
        constitution: gives tau and alpha_k.
        counts: the sealed split's counts by group and class.
        rates: hard rates of the cells (cells,) on *constraint*.
        behind: rows behind the referee's pooled rates (cells,).
    """
    normal = NormalDist()
    z = normal.inv_cdf(1 - constitution.gate.alpha_k) + normal.inv_cdf(POWER)
    sealed = torch.tensor([_sealed_rows(c, counts) for c in constraints.cells])
    judged = constraints.standard_errors(rates, sealed)
    steered = constraints.standard_errors(rates, behind)
    errors = (judged.square() + steered.square()).sqrt()
    tau = constraints.tau()
    return torch.minimum((tau - z * errors).clamp(min=0), tau)


def _sealed_rows(cell: Cell, counts: Counts) -> float:
    """Counts the sealed rows of a cell."""
    values, rows, labels = counts.table("sealed", cell.group)
    if cell.value not in values:
        return 0.0
    i = values.index(cell.value)
    if cell.condition is None:
        return float(rows[i])
    hits = float(labels[i, cell.outcome])
    # A sum of least counts where some are withheld: never more than there are.
    return hits if cell.condition else float(labels[i].sum()) - hits


class NuPI:
    """The multipliers, moved by the nuPI controller.

    The error e is the violation (ascent); xi starts at 0, cooper-optim's
    `nuPIInitType.ZEROS`, so that the first step is (kappa_i + (1-nu) kappa_p) e.

    Args:
        ki: integral gain of each multiplier (pairs,).
        kp: proportional gain of each multiplier (pairs,).
        nu: smoothing of the error, in [0, 1).
    """

    def __init__(self, ki: Tensor, kp: Tensor, nu: float) -> None:
        self.multipliers = torch.zeros_like(ki)
        self._xi = torch.zeros_like(ki)
        self._ki, self._kp, self._nu = ki, kp, nu

    def tensors(self) -> dict[str, Tensor]:
        """Returns lambda and xi by name."""
        return {"multipliers": self.multipliers, "xi": self._xi}

    def load_state_dict(self, multipliers: Tensor, xi: Tensor) -> None:
        """Goes on from lambda and xi."""
        self.multipliers, self._xi = multipliers, xi

    def step(self, violation: Tensor) -> None:
        """Moves lambda (pairs,) by the hard violations g (pairs,)."""
        xi = self._nu * self._xi + (1 - self._nu) * violation
        move = self._ki * violation + self._kp * (xi - self._xi)
        self.multipliers = (self.multipliers + move).clamp_(min=0)
        self._xi = xi
