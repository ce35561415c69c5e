"""Constraints: promises about rates as the optimizer sees them.

A gap <= tau holds iff every ordered difference of two groups' rates does, so one
principle becomes the constraints g = rate_a - rate_b - target <= 0, one for each
ordered pair of groups, and of each stratum where it is promised within the strata of
another column. Ratios, errors of groups and floors become sums of rates as well
(`inequalities`). The Lagrangian of one agent is

    L(theta, lambda) = loss(theta) + sum_pairs lambda_ab (soft_a - soft_b)

with soft rates (mean sigmoid of the logit) where the gradient is needed and hard
0/1 rates, on rows that the weights did not see, where the multipliers move
("proxy constraints", Cotter et al. 2019). `multipliers.py` moves them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import torch
from torch import Tensor

from safescale_ammt.constitution.losses import BoundedLoss
from safescale_ammt.constitution.principles import Constraint
from safescale_ammt.constitution.threats import Threat
from safescale_ammt.model.network import predicted
from safescale_ammt.training.bounded_loss import hard_losses
from safescale_ammt.training.inequalities import Pair, Sums

ATTACKED = 1024
"""Most rows that are attacked at once, to steer or to judge: a rate of all is within
.016, two times in three, and the margin of the targets allows for it."""


@dataclass(frozen=True)
class Cell:
    """Rows whose rate of one outcome is measured: P(outcome | group, condition).

    Attributes:
        group: name of the group column, "" of all rows.
        code: the group value's code.
        value: the group value.
        outcome: class code that counts as predicted.
        condition: True: rows of that class (TPR), False: rows of any other class
            (FPR), None: all rows (demographic parity).
        given: name of the column within whose strata groups are compared, or "".
        stratum: the stratum's code.
        at: the stratum's value.
        threat: what an attacker changes of the rows before they are answered.
        loss: whose mean stands in the place of the rate, where numbers are predicted;
            there the outcome says nothing.
    """

    group: str
    code: int
    value: str
    outcome: int
    condition: bool | None
    given: str = ""
    stratum: int = 0
    at: str = ""
    threat: Threat | None = None
    loss: BoundedLoss | None = None

    def rows(self, groups: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Returns which rows (n,) belong to this cell."""
        inside = torch.ones(len(label), dtype=torch.bool)
        for column, code in ((self.group, self.code), (self.given, self.stratum)):
            if column:
                inside &= groups[column] == code
        if self.condition is not None:
            inside &= (label == self.outcome) == self.condition
        return inside


@dataclass(frozen=True)
class Constraints:
    """All enforced principles, cut into cells and inequalities.

    Attributes:
        cells: the cells whose rates are measured.
        shares: each cell's share of the rows, in (0, 1].
        pairs: the constraints between them.
        promises: principle id -> what it promises.
        left_out: sentences that say which groups are not enforced, and why.
    """

    cells: tuple[Cell, ...]
    shares: tuple[float, ...]
    pairs: tuple[Pair, ...]
    promises: Mapping[str, Constraint]
    left_out: tuple[str, ...]

    @cached_property
    def _sums(self) -> Sums:
        return Sums(self.pairs)

    @property
    def thresholds(self) -> dict[str, float]:
        """Principle id -> its line."""
        return {name: c.line for name, c in self.promises.items()}

    def membership(self, groups: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Returns (cells, n) booleans: which row counts in which cell."""
        rows = [c.rows(groups, label) for c in self.cells]
        # `torch.stack` refuses an empty list.
        if not rows:
            return torch.zeros(0, len(label), dtype=torch.bool)
        return torch.stack(rows)

    @property
    def threats(self) -> tuple[Threat, ...]:
        """The threats that cells are under, each once."""
        return tuple(dict.fromkeys(c.threat for c in self.cells if c.threat))

    def under(self, threat: Threat | None) -> Tensor:
        """Returns which cells (cells,) are under a threat, or under none."""
        return torch.tensor([c.threat == threat for c in self.cells], dtype=torch.bool)

    def differences(self, rates: Tensor) -> Tensor:
        """Returns what is bounded (..., pairs) from the cells' rates (..., cells).

        Of a gap that is rate_a - rate_b; of all else the sum of `inequalities`.
        """
        if not self.pairs:
            return rates.new_zeros(*rates.shape[:-1], 0)
        return self._sums.of(rates)

    def tau(self) -> Tensor:
        """Returns the bound of each pair (pairs,): of a gap its threshold."""
        return torch.tensor([p.bound for p in self.pairs])

    def gains(self) -> Tensor:
        """Returns the factor on each pair's controller gains (pairs,), in (0, 1].

        A multiplier weighs a row of cell c with lambda / share_c, so that the same
        multiplier moves the rate of a small cell further. The factor undoes that:
        4 / (1/share_a + 1/share_b), which is 1 for two halves of all rows, and the
        like of sums with other terms.
        """
        # With one gain for all pairs, TPR by sex swung by .06 on Adult where
        # demographic parity was just fast enough (docs/decisions.md, 11).
        gains = []
        for pair in self.pairs:
            pulls = [
                max(
                    abs(term.factor * weight) / self.shares[cell]
                    for cell, weight in zip(term.cells, term.weights, strict=True)
                )
                for term in pair.terms
            ]
            gains.append(min(1.0, 2 * len(pulls) / sum(pulls)))
        return torch.tensor(gains)

    def values(self, rates: Tensor, unseen: Tensor | float = 0.0) -> dict[str, float]:
        """Returns each principle's metric: of its pairs the worst one's.

        None of a principle without pairs, or with a rate that is NaN: nothing says
        that its gap is 0; nor of a ratio of nobody to nobody.

        Args:
            rates: of the cells (cells,).
            unseen: what the differences are known to be larger by (pairs,).
        """
        if not self.pairs:
            return {}
        sums = self.differences(rates) + unseen
        highest = self._sums.rates(rates)[:, 0]
        by_principle: dict[str, list[float]] = {}
        numbers = zip(self.pairs, sums.tolist(), highest.tolist(), strict=True)
        for pair, total, high in numbers:
            c = self.promises[pair.principle]
            value = total if c.op == "<=" else -total
            if c.metric == "dp_ratio":
                # t high - low is the sum; of nobody in both, no ratio is the least.
                value = math.inf if high == 0 else c.line - total / high
            by_principle.setdefault(pair.principle, []).append(value)
        found = {}
        for name, values in by_principle.items():
            if any(map(math.isnan, values)) or min(values) == math.inf:
                continue
            worst = min if self.promises[name].op == ">=" else max
            found[name] = max(0.0, worst(values))
        return found

    def violations(
        self, rates: Tensor, unseen: Tensor | float = 0.0
    ) -> dict[str, float]:
        """Returns how far each principle's metric is beyond its line; see `values`."""
        return {
            name: value - c.line
            if (c := self.promises[name]).op == "<="
            else c.line - value
            for name, value in self.values(rates, unseen).items()
        }

    def by_pair(self, values: Tensor) -> dict[str, dict[str, float]]:
        """Returns values (pairs,) by principle and name of the pair, for the log."""
        by_principle: dict[str, dict[str, float]] = {}
        for pair, value in zip(self.pairs, values.tolist(), strict=True):
            by_principle.setdefault(pair.principle, {})[pair.name] = value
        return by_principle

    def weights(self, multipliers: Tensor) -> Tensor:
        """Returns each cell's weight in the Lagrangian, from lambda (pairs,)."""
        weights = torch.zeros(len(self.cells))
        for pair, value in zip(self.pairs, multipliers.tolist(), strict=True):
            for term in pair.terms:
                for cell, weight in zip(term.cells, term.weights, strict=True):
                    weights[cell] += term.factor * weight * value
        return weights

    def standard_errors(self, rates: Tensor, sizes: Tensor) -> Tensor:
        """Returns the differences' binomial standard errors (..., pairs).

        Args:
            rates: rates of the cells (..., cells), NaN of those without rows.
            sizes: rows behind each rate, of the same shape.
        """
        if not self.pairs:
            return rates.new_zeros(*rates.shape[:-1], 0)
        return self._sums.errors(rates, sizes)

    def spreads(self, variances: Tensor) -> Tensor:
        """Returns the differences' standard errors (pairs,) from cells' variances."""
        return self._sums.spreads(variances)

    @property
    def opposites(self) -> list[int | None]:
        """For each pair the place of the same comparison the other way round."""
        places = {
            (p.principle, tuple((t.factor, t.cells) for t in p.terms)): i
            for i, p in enumerate(self.pairs)
        }
        return [
            places.get((p.principle, p.opposite)) if len(p.terms) == 2 else None
            for p in self.pairs
        ]

    @property
    def unwatched(self) -> list[str]:
        """Ids of the enforced principles that are no differences of two rates."""
        return sorted({p.principle for p in self.pairs if not p.is_gap})


def hard_rates(predicted: Tensor, membership: Tensor, outcomes: Tensor) -> Tensor:
    """Returns hits per cell (k, cells) of predicted class codes (k, n).

    Args:
        predicted: class codes (k, n).
        membership: (cells, n), or (k, cells, n) where agents saw other rows.
        outcomes: the class code that counts as a hit, per cell (cells,).
    """
    hits = predicted[:, None] == outcomes[:, None]
    return (hits & membership).sum(-1).to(torch.float32)


def cell_sums(
    out: Tensor, y: Tensor, membership: Tensor, cells: Sequence[Cell]
) -> Tensor:
    """Returns hits per cell (k, cells) of answers; of cells with a loss its sums.

    Args:
        out: answers (k, n, n_out).
        y: class codes (n,) or (k, n), or numbers with another axis (n_out,).
        membership: as of `hard_rates`.
        cells: of one kind: numbers are predicted, or classes.
    """
    outcomes = torch.tensor([cell.outcome for cell in cells], dtype=torch.long)
    losses = dict.fromkeys(cell.loss for cell in cells if cell.loss is not None)
    if not losses:
        return hard_rates(predicted(out), membership, outcomes)
    each = {loss: hard_losses(loss, out, y) for loss in losses}
    of_cells = torch.stack([each[c.loss] for c in cells if c.loss is not None], 1)
    return torch.where(membership, of_cells, 0.0).sum(-1)


def z_value(confidence: float) -> float:
    """Returns the one-sided normal quantile; infinite at confidence 0 and 1."""
    # `inv_cdf` raises at both ends.
    if confidence in (0, 1):
        return math.inf if confidence else -math.inf
    return NormalDist().inv_cdf(confidence)
