"""Fitting the fair head: group chances and cell weights, after training.

The form of the correction is `model.fair_head`'s. The chances q are multinomial
logistic in the encoded row; the weights w solve the constraints on rows with known
groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safescale_ammt.model.fair_head import FairHead, Part
from safescale_ammt.training.constraints import Cell, Constraints, hard_rates
from safescale_ammt.training.encoded import EncodedRows

_Q_STEPS, _Q_RATE, _Q_DECAY = 200, 0.05, 1e-3
_W_STEPS, _W_RATE, _W_HALF = 400, 0.02, 50
_LEAST_RATE = 1e-3


def fit(
    constraints: Constraints, rows: EncodedRows, eta: Tensor, targets: Tensor
) -> FairHead | None:
    """Fits group chances and weights on rows with known groups.

    Args:
        constraints: what is enforced; binary labels.
        rows: encoded rows that the head is fitted on.
        eta: the model's scores of these rows (n,).
        targets: gap that each pair aims at (pairs,).

    Returns:
        The head whose worst violation on these rows is least, or None if there is
        nothing to correct.
    """
    if not constraints.pairs:
        return None
    inside = constraints.membership(rows.groups, rows.y)
    blocks = _blocks(constraints.cells)
    pulls = torch.zeros(len(constraints.cells), len(rows))
    models = []
    for cells in blocks:
        first = constraints.cells[cells[0]]
        weight, bias, chance = _group_model(rows.x, inside[cells])
        kappa = {True: eta, False: 1 - eta, None: torch.ones_like(eta)}
        share = inside[cells].to(torch.float32).mean(1).clamp(min=_LEAST_RATE)
        pulls[cells] = (chance.T / share[:, None]) * kappa[first.condition].float()
        models.append((first.condition, weight, bias, share, cells))
    weights = _solve(constraints, inside, eta.float(), pulls, targets)
    parts = (
        Part(condition, weight, bias, weights[cells] / share)
        for condition, weight, bias, share, cells in models
    )
    return FairHead(tuple(parts))


def _blocks(cells: tuple[Cell, ...]) -> list[list[int]]:
    """Groups cell numbers by group column and condition, in order."""
    found: dict[tuple[str, bool | None], dict[int, int]] = {}
    for i, cell in enumerate(cells):
        found.setdefault((cell.group, cell.condition), {}).setdefault(cell.code, i)
    return [list(by_code.values()) for by_code in found.values()]


def _group_model(x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fits P(group | x, condition) by full-batch Adam, from 0; returns chances too."""
    from safescale_ammt.training.adam import Adam

    counted = inside.any(0)
    known, target = x[counted], inside[:, counted].to(torch.float32).T
    size, groups = x.shape[1], len(inside)
    theta = torch.zeros(1, (size + 1) * groups)
    adam, decay = Adam.fresh(theta), torch.full((1, 1), _Q_DECAY)
    for _ in range(_Q_STEPS):
        weight, bias = theta[0, groups:].view(size, groups), theta[0, :groups]
        error = torch.softmax(torch.addmm(bias, known, weight), 1) - target
        grad = torch.cat([error.mean(0), (known.T @ error / len(known)).flatten()])
        adam.step(theta, grad[None], _Q_RATE, decay)
    weight, bias = (
        theta[0, groups:].view(size, groups).clone(),
        theta[0, :groups].clone(),
    )
    return weight, bias, torch.softmax(torch.addmm(bias, x, weight), 1)


def _solve(
    constraints: Constraints,
    inside: Tensor,
    eta: Tensor,
    pulls: Tensor,
    targets: Tensor,
) -> Tensor:
    """Moves the multipliers by hard violations; keeps the best weights (cells,)."""
    outcomes = torch.tensor([c.outcome for c in constraints.cells])
    sizes = inside.sum(1).clamp(min=1)
    multipliers = torch.zeros(len(targets))
    best, least = torch.zeros(len(inside)), float("inf")
    for step in range(_W_STEPS):
        weights = constraints.weights(multipliers)
        predicted = (eta - weights @ pulls / 2 >= 0.5).to(torch.int64)
        rates = hard_rates(predicted[None], inside, outcomes)[0] / sizes
        violation = constraints.differences(rates) - targets
        worst = float(violation.max().clamp(min=0))
        if worst < least:
            best, least = weights, worst
        rate = _W_RATE / (1 + step / _W_HALF)
        multipliers = (multipliers + rate * violation).clamp(min=0)
    return best
