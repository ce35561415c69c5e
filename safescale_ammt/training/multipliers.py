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
from safescale_ammt.training.constraints import ATTACKED, Constraints
from safescale_ammt.training.nets import SplitTables

POWER = 0.9
"""Chance that a model steered to its target passes the gate, by the margin."""


def targets(
    constraints: Constraints,
    constitution: Constitution,
    counts: SplitTables,
    rates: Tensor,
    pooled_sizes: Tensor,
) -> Tensor:
    """Returns what each pair's difference aims at (pairs,), of a gap the gap.

    target = tau - (z_{1-alpha_k} + z_.9) se, clipped to [least, tau]; the least of a
    gap is 0. se^2 adds what the pair's difference varies by at the sealed counts and
    at the counts behind the pooled rates that steer training: a model that is steered
    to the target passes the gate about nine times in ten.

    Args:
        constraints: the pairs.
        constitution: gives tau and alpha_k.
        counts: the sealed split's counts by group and class.
        rates: hard rates of the cells (cells,) on *constraint*, NaN without rows there.
        pooled_sizes: rows behind the pooled rates of the dual update (cells,).
    """
    normal = NormalDist()
    # The gate judges each planned submission at its share of alpha.
    z = normal.inv_cdf(1 - constitution.gate.alpha_k) + normal.inv_cdf(POWER)
    sealed = sealed_sizes(constraints, counts)
    judged = constraints.standard_errors(rates, sealed)
    steered = constraints.standard_errors(rates, pooled_sizes)
    # The two samples are independent, so their variances add up. With the sealed
    # error alone Adult's target at .08 would be .016, with both it is 0.
    errors = (judged.square() + steered.square()).sqrt()
    tau = constraints.tau()
    least = torch.tensor([pair.least for pair in constraints.pairs])
    return torch.minimum(torch.maximum(tau - z * errors, least), tau)


def sealed_sizes(constraints: Constraints, counts: SplitTables) -> Tensor:
    """Returns the sealed rows of each cell (cells,), as far as the counts tell."""
    sealed = torch.zeros(len(constraints.cells))
    for i, cell in enumerate(constraints.cells):
        if not cell.group:
            # Of classes alone no counts are told: they are as in development.
            sealed[i] = counts.total("sealed") * constraints.shares[i]
            continue
        if cell.given:
            names, strata, rows, labels = counts.crossed(
                "sealed", cell.group, cell.given
            )
            if cell.at not in strata:
                continue
            stratum = strata.index(cell.at)
            rows, labels = rows[:, stratum], labels[:, stratum]
        else:
            names, rows, labels = counts.table("sealed", cell.group)
        if cell.value in names:
            group = names.index(cell.value)
            total, hits = float(rows[group]), float(labels[group, cell.outcome])
            # A sum of least counts where some are withheld: never more than there are.
            misses = float(labels[group].sum()) - hits
            sealed[i] = {None: total, True: hits, False: misses}[cell.condition]
    if constraints.threats:
        # Of rows under attack a part is judged.
        part = min(1.0, ATTACKED / max(1, counts.total("sealed")))
        sealed = torch.where(constraints.under(None), sealed, sealed * part)
    return sealed


class NuPI:
    """The multipliers, moved by the nuPI controller; the error e is the violation.

    Args:
        ki: integral gain of each multiplier (pairs,).
        kp: proportional gain of each multiplier (pairs,).
        nu: smoothing of the error, in [0, 1).
    """

    def __init__(self, ki: Tensor, kp: Tensor, nu: float) -> None:
        self.multipliers = torch.zeros_like(ki)
        # cooper-optim's `nuPIInitType.ZEROS`: the first step is then
        # (kappa_i + (1 - nu) kappa_p) e, not kappa_i e.
        self._xi = torch.zeros_like(ki)
        self._ki, self._kp, self._nu = ki, kp, nu

    def step(self, violation: Tensor) -> None:
        """Moves lambda (pairs,) by the hard violations g (pairs,), none by a NaN."""
        xi = self._nu * self._xi + (1 - self._nu) * violation
        # A violation that is not defined neither pushes nor lets go.
        xi = torch.where(violation.isnan(), self._xi, xi)
        move = self._ki * violation.nan_to_num(0) + self._kp * (xi - self._xi)
        self.multipliers = (self.multipliers + move).clamp_(min=0)
        self._xi = xi

    def raise_by(self, violation: Tensor, updates: int) -> None:
        """Raises lambda at once by what so many updates at a violation would."""
        move = updates * self._ki * violation.clamp(min=0).nan_to_num(0)
        self.multipliers = self.multipliers + move

    def tensors(self) -> dict[str, Tensor]:
        """Returns lambda and xi by name."""
        return {"multipliers": self.multipliers, "xi": self._xi}

    def load_tensors(self, multipliers: Tensor, xi: Tensor) -> None:
        """Continues from lambda and xi."""
        self.multipliers, self._xi = multipliers, xi
