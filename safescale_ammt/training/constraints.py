"""Constraints: promises about groups as the optimizer sees them.

A gap <= tau holds iff every ordered difference of two groups' rates does, so one
principle becomes the constraints g = rate_a - rate_b - target <= 0, one for each
ordered pair of groups. The Lagrangian of one agent is

    L(theta, lambda) = loss(theta) + sum_pairs lambda_ab (soft_a - soft_b)

with soft rates (mean sigmoid of the logit) where the gradient is needed and hard
0/1 rates, on rows that the weights did not see, where the multipliers move
("proxy constraints", Cotter et al. 2019). `multipliers.py` moves them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from statistics import NormalDist

import torch
from torch import Tensor

from safescale_ammt.constitution.constitution import Constitution, GroupRule
from safescale_ammt.constitution.principles import Principle

# Whose rows a metric's rates are taken of; see `Cell.condition`.
_CONDITIONS = {
    "dp_gap": (None,),
    "tpr_gap": (True,),
    "fpr_gap": (False,),
    "eo_difference": (True, False),
}


@dataclass(frozen=True)
class Cell:
    """Rows whose rate of one outcome is measured: P(outcome | group, condition).

    Attributes:
        group: name of the group column.
        code: the group value's code.
        value: the group value.
        outcome: class code that counts as predicted.
        condition: True: rows of that class (TPR), False: rows of any other class
            (FPR), None: all rows (demographic parity).
    """

    group: str
    code: int
    value: str
    outcome: int
    condition: bool | None

    def rows(self, codes: Tensor, label: Tensor) -> Tensor:
        """Returns which rows (n,) belong to this cell."""
        inside = codes == self.code
        if self.condition is not None:
            inside &= (label == self.outcome) == self.condition
        return inside


@dataclass(frozen=True)
class Pair:
    """One constraint: rate of cell `a` minus rate of cell `b` <= target."""

    principle: str
    a: int
    b: int
    name: str


@dataclass(frozen=True)
class Constraints:
    """All enforced principles, cut into cells and ordered pairs.

    Attributes:
        cells: the cells whose rates are measured.
        shares: each cell's share of the rows, in (0, 1].
        pairs: the constraints between them.
        thresholds: principle id -> tau.
        left_out: sentences that say which groups are not enforced, and why.
    """

    cells: tuple[Cell, ...]
    shares: tuple[float, ...]
    pairs: tuple[Pair, ...]
    thresholds: Mapping[str, float]
    left_out: tuple[str, ...]

    def membership(self, groups: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Returns (cells, n) booleans: which row counts in which cell."""
        rows = [c.rows(groups[c.group], label) for c in self.cells]
        # `torch.stack` refuses an empty list.
        if not rows:
            return torch.zeros(0, len(label), dtype=torch.bool)
        return torch.stack(rows)

    def differences(self, rates: Tensor) -> Tensor:
        """Returns rate_a - rate_b (..., pairs) from the cells' rates (..., cells)."""
        a = torch.tensor([p.a for p in self.pairs], dtype=torch.long)
        b = torch.tensor([p.b for p in self.pairs], dtype=torch.long)
        return rates[..., a] - rates[..., b]

    def tau(self) -> Tensor:
        """Returns the threshold of each pair's principle (pairs,)."""
        return torch.tensor([self.thresholds[p.principle] for p in self.pairs])

    def gains(self) -> Tensor:
        """Returns the factor on each pair's controller gains (pairs,), in (0, 1].

        A multiplier weighs a row of cell c with lambda / share_c, so that the same
        multiplier moves the rate of a small cell further. The factor undoes that:
        4 / (1/share_a + 1/share_b), which is 1 for two halves of all rows.
        """
        # With one gain for all pairs, TPR by sex swung by .06 on Adult where
        # demographic parity was just fast enough (docs/decisions.md, 11).
        each = [1 / self.shares[p.a] + 1 / self.shares[p.b] for p in self.pairs]
        return torch.tensor([4 / inverse for inverse in each])

    def gaps(self, rates: Tensor, unseen: Tensor | float = 0.0) -> dict[str, float]:
        """Returns each principle's gap, the largest difference of its pairs.

        None of a principle without pairs, or with a rate that is NaN: nothing says
        that its gap is 0.

        Args:
            rates: of the cells (cells,).
            unseen: what the differences are known to be larger by (pairs,).
        """
        differences = self.differences(rates) + unseen
        by_principle: dict[str, list[float]] = {}
        for pair, value in zip(self.pairs, differences.tolist(), strict=True):
            by_principle.setdefault(pair.principle, []).append(value)
        return {
            name: max(0.0, *values)
            for name, values in by_principle.items()
            if not any(map(math.isnan, values))
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
            weights[pair.a] += value
            weights[pair.b] -= value
        return weights

    def standard_errors(self, rates: Tensor, sizes: Tensor) -> Tensor:
        """Returns the pairs' binomial standard errors (..., pairs).

        Args:
            rates: rates of the cells (..., cells), NaN of those without rows.
            sizes: rows behind each rate, of the same shape.
        """
        # Agresti-Caffo: one success and one failure more, never a zero variance. A rate
        # that nobody knows is given the largest variance that there is.
        p = (rates.nan_to_num(0.5) * sizes + 1) / (sizes + 2)
        variance = p * (1 - p) / (sizes + 2)
        a = torch.tensor([p.a for p in self.pairs], dtype=torch.long)
        b = torch.tensor([p.b for p in self.pairs], dtype=torch.long)
        return (variance[..., a] + variance[..., b]).sqrt()


def enforce(
    constitution: Constitution,
    values: Mapping[str, Sequence[str]],
    groups: Mapping[str, Tensor],
    label: Tensor,
    outcomes: Sequence[int],
) -> Constraints:
    """Cuts the enforced principles into cells and pairs.

    A group with fewer rows than `groups.min_n`, or fewer positives than
    `groups.min_pos`, among these rows is left out with a sentence: a rate on a
    handful of rows would drive the multipliers at random.

    Args:
        constitution: names the principles and the least sizes.
        values: group name -> its values in code order.
        groups: group name -> codes (n,) of the rows that drive the multipliers.
        label: class codes (n,) of these rows.
        outcomes: classes whose rates are compared: the positive one, or all.
    """
    cells: list[Cell] = []
    pairs: list[Pair] = []
    left_out: list[str] = []
    for principle in constitution.enforced:
        name = principle.constraint.group
        # Gaps alone are enforced, and the constitution has checked that they name one.
        assert name is not None
        labels = [label[groups[name] == code] for code in range(len(values[name]))]
        large, reasons = _large_enough(
            constitution.groups, principle, values[name], labels, outcomes
        )
        left_out += reasons
        for outcome in outcomes:
            for condition in _CONDITIONS[principle.constraint.metric]:
                first = len(cells)
                cells += [
                    Cell(name, code, values[name][code], outcome, condition)
                    for code in large
                ]
                rate = {True: "TPR", False: "FPR", None: "rate"}[condition]
                of = f" of class {outcome}" if len(outcomes) > 1 else ""
                pairs += [
                    Pair(
                        principle.id,
                        a,
                        b,
                        f"{rate}{of}: {cells[a].value} - {cells[b].value}",
                    )
                    for a, b in permutations(range(first, len(cells)), 2)
                ]
    thresholds = {p.id: p.constraint.threshold or 0.0 for p in constitution.enforced}
    shares = tuple(
        float(cell.rows(groups[cell.group], label).to(torch.float32).mean())
        for cell in cells
    )
    return Constraints(tuple(cells), shares, tuple(pairs), thresholds, tuple(left_out))


def _large_enough(
    sizes: GroupRule,
    principle: Principle,
    values: Sequence[str],
    labels: Sequence[Tensor],
    outcomes: Sequence[int],
) -> tuple[list[int], list[str]]:
    """Returns the codes of the groups to enforce, and why others are left out.

    Args:
        sizes: the least sizes.
        principle: that compares the groups.
        values: the groups' names.
        labels: each group's class codes (n_group,).
        outcomes: classes whose rates are compared.
    """
    conditions = _CONDITIONS[principle.constraint.metric]
    codes, reasons = [], []
    for code, label in enumerate(labels):
        rows = len(label)
        # Of several outcomes the rarest decides, on either side.
        hits = [int((label == outcome).sum()) for outcome in outcomes]
        positives, negatives = min(hits), rows - max(hits)
        lack = None
        if rows < sizes.min_n:
            lack = f"{rows} rows, groups.min_n is {sizes.min_n}"
        elif True in conditions and positives < sizes.min_pos:
            lack = f"{positives} positives, groups.min_pos is {sizes.min_pos}"
        elif False in conditions and negatives < sizes.min_pos:
            lack = f"{negatives} negatives, groups.min_pos is {sizes.min_pos}"
        if lack is None:
            codes.append(code)
        else:
            reasons.append(
                f"{principle.id} is not enforced for {principle.constraint.group} = "
                f"{values[code]!r}: the rows that drive the multipliers hold {lack}."
            )
    # A gap needs two groups: with one left, the whole principle is silent.
    if len(codes) == 1:
        reasons.append(
            f"{principle.id} is not enforced: only one value of "
            f"{principle.constraint.group} has enough rows to compare."
        )
    return codes, reasons


def hard_rates(predicted: Tensor, membership: Tensor, outcomes: Tensor) -> Tensor:
    """Returns hits per cell (k, cells) of predicted class codes (k, n).

    Args:
        predicted: class codes (k, n).
        membership: (cells, n), or (k, cells, n) where agents saw other rows.
        outcomes: the class code that counts as a hit, per cell (cells,).
    """
    hits = predicted[:, None] == outcomes[:, None]
    return (hits & membership).sum(-1).to(torch.float32)


def z_value(confidence: float) -> float:
    """Returns the one-sided normal quantile; infinite at confidence 0 and 1."""
    # `inv_cdf` raises at both ends.
    if confidence in (0, 1):
        return math.inf if confidence else -math.inf
    return NormalDist().inv_cdf(confidence)
