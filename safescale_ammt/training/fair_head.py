"""Fitting the fair head: group chances and cell weights, after training.

The form of the correction is `model.fair_head`'s. The chances q are multinomial
logistic in the encoded row; the weights w solve the constraints on rows with known
groups.
"""

from __future__ import annotations

import torch
from torch import Tensor

from safescale_ammt.model.fair_head import FairHead, Part
from safescale_ammt.training.adam import Adam
from safescale_ammt.training.constraints import Constraints, hard_rates
from safescale_ammt.training.nets import Rows

_Q_STEPS, _Q_RATE, _Q_DECAY = 200, 0.05, 1e-3
"""Steps, learning rate and decay of Adam for the group chances q."""
_W_STEPS, _W_RATE, _W_HALF = 400, 0.02, 50
"""Steps, first rate, and steps until the rate is half, of the multipliers."""
HEAD_ROWS = ("constraint", "monitor")
"""Splits that a head is fitted on: *select* would judge it on its own rows."""
FITTED_ROWS, FITTED_NUMBERS = 1 << 16, 1 << 24
"""Most rows that a head is fitted on, and most inputs of all of them."""
_LEAST_SHARE = 1e-3
"""A cell's share of the rows is taken to be no less: its weight is divided by it."""


def fit(
    constraints: Constraints, rows: Rows, x: Tensor, eta: Tensor, targets: Tensor
) -> FairHead | None:
    """Fits group chances and weights on rows with known groups.

    Args:
        constraints: what is enforced; binary labels.
        rows: that the head is fitted on.
        x: what it reads of them (n, d), of mean 0 and deviation 1 or so.
        eta: the model's scores of these rows (n,).
        targets: gap that each pair aims at (pairs,).

    Returns:
        The head whose worst violation on these rows is least, or None if there is
        nothing to correct.
    """
    if not constraints.pairs:
        return None
    inside = constraints.membership(rows.groups, rows.y)
    # What an attack makes of a score no correction of scores undoes.
    plain = constraints.under(None)
    inside &= plain[:, None]
    # Cells of one group column (in the strata of one other) and condition share one
    # model of the groups. A cell that two principles name is fitted once, with the
    # weight of the first.
    blocks: dict[tuple[str, str, bool | None], dict[tuple[int, int], int]] = {}
    for i, cell in enumerate(constraints.cells):
        if not plain[i]:
            continue
        block = blocks.setdefault((cell.group, cell.given, cell.condition), {})
        block.setdefault((cell.code, cell.stratum), i)
    pulls = torch.zeros(len(constraints.cells), len(rows))
    models = []
    for (*_, condition), by_code in blocks.items():
        cells = list(by_code.values())
        # Of no row nobody learns which group it is likely to be of.
        if not inside[cells].any():
            continue
        weight, bias, chance = _group_model(x, inside[cells])
        kappa = {True: eta, False: 1 - eta, None: torch.ones_like(eta)}
        share = inside[cells].to(torch.float32).mean(1).clamp(min=_LEAST_SHARE)
        pulls[cells] = (chance.T / share[:, None]) * kappa[condition].float()
        models.append((condition, weight, bias, share, cells))
    if not models:
        return None
    weights = _solve(constraints, inside, eta.float(), pulls, targets)
    parts = (
        Part(condition, *(t.numpy() for t in (weight, bias, weights[cells] / share)))
        for condition, weight, bias, share, cells in models
    )
    return FairHead(tuple(parts))


def _group_model(x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fits P(group | x, condition) by full-batch Adam, from 0; returns chances too.

    Returns:
        Weight (d, groups), bias (groups,) and the chances of all rows (n, groups).
    """
    in_a_cell = inside.any(0)
    inputs, target = x[in_a_cell], inside[:, in_a_cell].to(torch.float32)
    size, groups = x.shape[1], len(inside)
    theta = torch.zeros(1, (size + 1) * groups)
    bias, weight = theta[0, :groups, None], theta[0, groups:].view(groups, size)
    adam = Adam(theta, torch.full((1, 1), _Q_DECAY))
    for _ in range(_Q_STEPS):
        # The gradient of softmax and log loss in closed form: autograd has no part.
        # A group is a row: with few columns the same products take eight times as long.
        error = torch.softmax(torch.addmm(bias, weight, inputs.T), 0) - target
        grad = torch.cat([error.mean(1), (error @ inputs / len(inputs)).flatten()])
        adam.step(theta, grad[None], _Q_RATE)
    chance = torch.softmax(torch.addmm(bias, weight, x.T), 0).T
    return weight.T.contiguous(), bias[:, 0].clone(), chance


def _solve(
    constraints: Constraints,
    inside: Tensor,
    eta: Tensor,
    pulls: Tensor,
    targets: Tensor,
) -> Tensor:
    """Moves the multipliers by hard violations; keeps the best weights (cells,)."""
    outcomes = torch.tensor([c.outcome for c in constraints.cells])
    sizes = inside.sum(1)
    multipliers = torch.zeros(len(targets))
    best, least = torch.zeros(len(inside)), float("inf")
    for step in range(_W_STEPS):
        weights = constraints.weights(multipliers)
        predicted = (eta - weights @ pulls / 2 >= 0.5).to(torch.int64)
        rates = hard_rates(predicted[None], inside, outcomes)[0] / sizes
        # A rate of no rows, 0 / 0, neither pushes nor is a violation.
        violation = (constraints.differences(rates) - targets).nan_to_num(0)
        worst = float(violation.max().clamp(min=0))
        # Hard rates jump, so the last weights need not be the best.
        if worst < least:
            best, least = weights, worst
        rate = _W_RATE / (1 + step / _W_HALF)
        multipliers = (multipliers + rate * violation).clamp(min=0)
    return best
