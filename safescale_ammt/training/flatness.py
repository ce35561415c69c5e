"""Flatness: whether more agents could change what the held-out rows say.

Agent i measures a figure y_i, such as the difference of two groups' rates, on the fold
that it set aside, with a variance v_i that comes from drawing rows. No number of agents
removes that error from the pooled figure, for all rows are held out already; what
agents differ by beyond it (tau^2 of DerSimonian & Laird 1986) falls with their number:

    error^2 = r / sum_i 1 / v_i        spread^2 = tau^2 / k

where each row is held out by r agents, which see the same draw of it.

While a figure's spread is above its error, twice as many agents could change it by more
than its rows can tell; below, they could not.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from safescale_ammt.model.network import predicted
from safescale_ammt.training.constraints import ATTACKED, cell_sums, hard_rates
from safescale_ammt.training.dual_update import measured
from safescale_ammt.training.nets import asked
from safescale_ammt.training.placement import Placement
from safescale_ammt.training.plan import Plan
from safescale_ammt.training.training_log import Log

_LEAST = 2
"""Agents that two variances need."""


class Ended(Protocol):
    """What a training of agents ended as."""

    @property
    def agents(self) -> Tensor:
        """Averaged weights (k, P)."""

    @property
    def finite(self) -> Tensor:
        """Which agents ended with finite weights (k,)."""


@dataclass(frozen=True)
class Figure:
    """One figure, pooled over the agents.

    Attributes:
        value: the pooled figure.
        error: its standard error from drawing rows.
        spread: what the agents add to it by differing.
    """

    value: float
    error: float
    spread: float

    @classmethod
    def pooled(cls, values: Tensor, variances: Tensor, times: float) -> Figure | None:
        """Pools the agents' values (k,), None if fewer than two have one.

        Args:
            values: of each agent, NaN without one.
            variances: of each value, from drawing rows.
            times: agents that hold out the same row.
        """
        known = values.isfinite() & variances.isfinite() & (variances > 0)
        y, w = values[known], 1 / variances[known]
        k, total = len(y), w.sum()
        if k < _LEAST:
            return None
        mean = (w * y).sum() / total
        beyond = (w * (y - mean).square()).sum() - (k - 1)
        tau2 = beyond.clamp(min=0) / (total - w.square().sum() / total)
        error = math.sqrt(times / float(total))
        return cls(float(mean), error, math.sqrt(float(tau2) / k))

    @property
    def ratio(self) -> float:
        """What more agents could change, in errors: flat up to 1."""
        return self.spread / self.error


def are_enough(plan: Plan, trained: Ended, placement: Placement, log: Log) -> bool:
    """Decides whether no more agents are to be trained, and logs why.

    Args:
        plan: of these agents.
        trained: what they ended as.
        placement: of agents and twin.
        log: receives the evidence, unless the section names a number.
    """
    counts = plan.config.agent_counts
    if len(counts) == 1:
        return True
    event = evidence(
        len(plan.roles), held_out_figures(plan, trained, placement), counts[-1]
    )
    log(event)
    enough = torch.tensor([event["event"] == "agents"])
    # A comparison, as in the dual update: every process takes rank 0's word.
    placement.broadcast(enough)
    return bool(enough)


def held_out_figures(
    plan: Plan, trained: Ended, placement: Placement
) -> dict[str, Figure]:
    """Measures loss and differences of rates of each agent on the rows it held out.

    Args:
        plan: of the agents.
        trained: what they ended as.
        placement: of agents and twin; each process measures its own.

    Returns:
        `loss`, and by principle its pair that is least flat.
    """
    constraints, k = plan.constraints, len(plan.roles)
    inside = constraints.membership(plan.rows.groups, plan.rows.y)
    outcomes = torch.tensor([c.outcome for c in constraints.cells], dtype=torch.long)
    figures_here = torch.zeros(len(placement.local_below(k)), 2 + 2 * len(outcomes))
    for i, slot in enumerate(placement.local_below(k)):
        fold = plan.held_out[slot]
        # Alone: its bits do not depend on how many agents this process holds.
        own = trained.agents[slot : slot + 1].clone()
        out = plan.nets.logits(own, plan.rows, fold[None])
        losses = plan.nets.row_losses(out[0], plan.rows.y[fold])
        y = plan.rows.y[fold]
        hits = cell_sums(out, y, inside[:, fold], constraints.cells)[0]
        sizes = inside[:, fold].sum(1)
        for threat in constraints.threats:
            cells = constraints.under(threat)
            ((part, rows),) = measured(inside[cells], [fold], 0, ATTACKED // k)
            out = asked(plan.nets, own, plan.rows, rows[None], threat)
            hits[cells] = hard_rates(predicted(out), part, outcomes[cells])[0]
            sizes[cells] = part.sum(1)
        each = losses.mean(), losses.var() / len(losses)
        figures_here[i] = torch.cat([torch.stack(each), hits, sizes])
    loss, variance, *by_cell = placement.gather(figures_here, k)[trained.finite].T
    times = max(1.0, sum(map(len, plan.held_out)) / len(plan.rows))
    figures = {"loss": Figure.pooled(loss, variance, times)}
    if constraints.pairs:
        hits, sizes = torch.stack(by_cell).T.tensor_split(2, 1)
        rates = hits / sizes
        errors = constraints.standard_errors(rates, sizes).T
        for pair, y, error in zip(
            constraints.pairs, constraints.differences(rates).T, errors, strict=True
        ):
            found = Figure.pooled(y, error.square(), times)
            before = figures.get(pair.principle)
            if before is None or (found and found.ratio > before.ratio):
                figures[pair.principle] = found
    return {name: figure for name, figure in figures.items() if figure is not None}


def evidence(agents: int, figures: dict[str, Figure], most: int) -> dict[str, Any]:
    """Returns the event that says whether so many agents are enough, and why.

    Args:
        agents: how many there are.
        figures: what they measured.
        most: agents that may be tried.
    """
    steep = [name for name, figure in figures.items() if figure.ratio > 1]
    more = bool(steep) and agents < most
    answer = "more are tried" if more else "they are enough" if not steep else ""
    answer = answer or f"{most} are the most that are tried"
    shown = ", ".join(
        f"{name} {figure.spread:.2g} against {figure.error:.2g}"
        for name, figure in figures.items()
    )
    reason = (
        f"{agents} agents: {answer}. What they differ by on held-out rows beyond "
        f"chance, against the error that no number of agents removes: {shown}."
    )
    return {
        "event": "more_agents" if more else "agents",
        "agents": agents,
        "flat": not steep,
        "figures": {name: asdict(figure) for name, figure in figures.items()},
        "reason": reason,
    }
