"""Merge shift: what the merged model differs by from the mean of its agents.

The dual update pools each agent's hits on the fold that it holds out, so that the pool
estimates the mean of the agents' rates. What is handed on is the mean of their weights
(of trees, of their scores), whose rates need not be that: an agent that a role pulls
far to one side moves the mean by more than its own rates say. On rows that nobody
trains on, all agents and their mean answer the same, so that only rows where these
disagree add noise:

    shift_j  = d_j(mean of the agents) - mean_i d_j(agent i)
    se_j^2   = sum_c a_jc^2 var_c / n_c      var_c of the rows' own differences
    kept_j   = shift_j min(1, b / (b - a) max(0, 1 - a se_j / |shift_j|))

with d_j the j-th sum of rates. The last line is firm shrinkage (Gao and Bruce 1997,
Statistica Sinica 7:855): nothing of what may be chance, up to a standard errors; all
of what is over b of them; and no jump between the two. Folds would not do: all agents
but one have learnt a fold's rows, and their mean more so than each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from safescale_ammt.config.roles import Role
from safescale_ammt.training.constraints import Constraints
from safescale_ammt.training.nets import Rows

CHANCE, CLEARLY = 3.0, 4.0
"""Standard errors: up to a may be chance, of all pairs and looks; b is kept whole."""


def differ(roles: Sequence[Role]) -> bool:
    """Says whether roles differ by a number, and not by their names alone."""
    return len({replace(role, name="", favours="") for role in roles}) > 1


class MergeShift:
    """Measures the shift of every pair.

    Args:
        constraints: the pairs.
        rows: that no agent trains on.
        inside: which of them counts in which cell (cells, n).
    """

    def __init__(self, constraints: Constraints, rows: Rows, inside: Tensor) -> None:
        self.rows = rows
        self._constraints, self._inside = constraints, inside
        self._outcomes = torch.tensor([cell.outcome for cell in constraints.cells])

    def kept(self, agents: Tensor, merged: Tensor) -> Tensor:
        """Returns what is kept of each pair's shift (pairs,), 0 without rows.

        Args:
            agents: class codes that each agent predicts (k, n).
            merged: class codes that their mean predicts (n,).
        """
        shifts, errors = self.measured(agents, merged)
        # Where all agree both are 0, and 0 / 0 is no share.
        beyond = 1 - CHANCE * errors / shifts.abs()
        share = (CLEARLY / (CLEARLY - CHANCE) * beyond).clamp(0, 1)
        return (shifts * share).nan_to_num(0)

    def measured(self, agents: Tensor, merged: Tensor) -> tuple[Tensor, Tensor]:
        """Returns each pair's shift and its standard error (pairs,); see `kept`."""
        outcomes = self._outcomes[:, None]
        alone = torch.zeros(self._inside.shape)
        for answers in agents:
            alone += answers == outcomes
        together = (merged == outcomes).to(torch.float32)
        alone /= len(agents)
        n = self._inside.sum(1)
        means, squares = (
            torch.where(self._inside, value, 0.0).sum(1) / n
            for value in (together - alone, (together - alone).square())
        )
        variances = (squares - means.square()) / (n - 1)
        rates = torch.where(self._inside, alone, 0.0).sum(1) / n
        sums = self._constraints.differences(torch.stack([rates + means, rates]))
        return sums[0] - sums[1], self._constraints.spreads(variances)
