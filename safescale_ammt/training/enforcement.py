"""Enforcement: the principles that training works on, cut into cells and inequalities.

Gaps and ratios compare every two groups, within each stratum where they are promised
given another column; of predicted numbers mean losses are compared. An error is bounded
in each group; floors are held by all rows. A robust accuracy bounds the error under
attack, of all rows or in each group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations

import torch
from torch import Tensor

from safescale_ammt.constitution.constitution import Constitution, GroupRule
from safescale_ammt.constitution.principles import LOSS_GAP, ROBUST, Principle
from safescale_ammt.errors import ConstitutionError
from safescale_ammt.training.constraints import Cell, Constraints
from safescale_ammt.training.inequalities import (
    Pair,
    Term,
    at_least,
    at_most,
    gap,
    ratio,
)

# Whose rows a metric's rates are taken of; see `Cell.condition`.
_CONDITIONS = {
    "dp_gap": (None,),
    "dp_ratio": (None,),
    "tpr_gap": (True,),
    "fpr_gap": (False,),
    "eo_difference": (True, False),
    LOSS_GAP: (None,),
}


def enforce(
    constitution: Constitution,
    values: Mapping[str, Sequence[str]],
    groups: Mapping[str, Tensor],
    label: Tensor,
    outcomes: Sequence[int],
) -> Constraints:
    """Cuts the enforced principles into cells and inequalities.

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
    cut = _Cut(constitution.groups, values, groups, label, outcomes)
    for principle in constitution.enforced:
        c = principle.constraint
        if c.group is None:
            cut.hold_to_floor(principle)
            continue
        anybody = Cell(
            c.group, 0, "", 0, None, c.given or "", threat=c.threat, loss=c.loss
        )
        for code, value in enumerate(values[c.given] if c.given else [""]):
            stratum = replace(anybody, stratum=code, at=value)
            large = cut.large_enough(principle, stratum)
            if c.threat is not None:
                cut.hold_under_attack(principle, large)
            elif c.metric == "worst_group_error":
                cut.bound_errors(principle, large)
            else:
                cut.compare(principle, large)
    shares = tuple(
        float(cell.rows(groups, label).to(torch.float32).mean()) for cell in cut.cells
    )
    promises = {p.id: p.constraint for p in constitution.enforced}
    left_out = tuple(cut.left_out)
    return Constraints(tuple(cut.cells), shares, tuple(cut.pairs), promises, left_out)


class _Cut:
    """Cuts principles into cells and inequalities, one principle after another.

    Args:
        sizes: the least sizes of groups.
        values: group name -> its values in code order.
        groups: group name -> codes (n,) of the rows.
        label: class codes (n,).
        outcomes: classes whose rates are compared.
    """

    def __init__(
        self,
        sizes: GroupRule,
        values: Mapping[str, Sequence[str]],
        groups: Mapping[str, Tensor],
        label: Tensor,
        outcomes: Sequence[int],
    ) -> None:
        self._sizes, self._values, self._groups = sizes, values, groups
        self._label, self._outcomes = label, outcomes
        self.cells: list[Cell] = []
        self.pairs: list[Pair] = []
        self.left_out: list[str] = []

    def compare(self, principle: Principle, large: Sequence[Cell]) -> None:
        """Compares the rates of every two groups, either way round."""
        c = principle.constraint
        # Predicted numbers have one mean loss, and no outcomes.
        for outcome in self._outcomes or (0,):
            for condition in _CONDITIONS[c.metric]:
                first = len(self.cells)
                self.cells += [
                    replace(group, outcome=outcome, condition=condition)
                    for group in large
                ]
                for a, b in permutations(range(first, len(self.cells)), 2):
                    self.pairs.append(self.comparison(principle, a, b))

    def comparison(self, principle: Principle, a: int, b: int) -> Pair:
        c, one, other = principle.constraint, self.cells[a], self.cells[b]
        what = {True: "TPR", False: "FPR", None: "rate"}[one.condition]
        what = what if c.loss is None else "loss"
        what += f" of class {one.outcome}" if len(self._outcomes) > 1 else ""
        what += f" given {one.at}" if one.given else ""
        if c.metric != "dp_ratio":
            name = f"{what}: {one.value} - {other.value}"
            found = gap(principle.id, name, a, b, c.line)
            return replace(found, counted=c.loss is None)
        rows = one.rows(self._groups, self._label)
        rows |= other.rows(self._groups, self._label)
        # As the power check has it: about as many are selected as are in the class.
        rate = float((self._label[rows] == one.outcome).to(torch.float32).mean())
        name = f"{what}: {one.value} / {other.value}"
        return ratio(principle.id, name, (a, b), c.line, rate=rate)

    def bound_errors(self, principle: Principle, large: Sequence[Cell]) -> None:
        """Bounds the error of every group."""
        for group in large:
            name, line = f"error: {group.value}", principle.constraint.line
            error = self._error(group)
            self.pairs.append(at_most(principle.id, name, [error], line))

    def hold_under_attack(self, principle: Principle, groups: Sequence[Cell]) -> None:
        """Holds the right answers to every group's attacked rows to a floor."""
        c = principle.constraint
        for group in groups:
            name = f"{c.metric}: {group.value}"
            terms = [self._accuracy(group)]
            self.pairs.append(at_least(principle.id, name, terms, c.line))

    def hold_to_floor(self, principle: Principle) -> None:
        """Holds a measure of use of all rows, or of all under attack, to its floor.

        Raises:
            ConstitutionError: it speaks of one class, but several are judged.
        """
        c = principle.constraint
        everybody = Cell("", 0, "", 0, None, threat=c.threat)
        if c.metric == "recall":
            if len(self._outcomes) > 1:
                raise ConstitutionError(
                    f"Principle {principle.id!r} promises recall, which speaks of one "
                    "class, but several are judged; name data.positive, or promise "
                    "balanced_accuracy."
                )
            if not bool((self._label == self._outcomes[0]).any()):
                self.left_out.append(
                    f"{principle.id} is not enforced: no row that drives the "
                    "multipliers is of its class."
                )
                return
            terms = [Term(-1.0, (self._right(everybody, self._outcomes[0]),))]
        elif c.metric in ("accuracy", ROBUST):
            terms = [self._accuracy(everybody)]
        else:
            parts = self._error(everybody)
            # Each class counts alike; of a class 0 that is told by false alarms the
            # right answers are 1 - rate.
            terms = [
                Term(
                    -1 / len(parts.cells),
                    (cell,),
                    (-math.copysign(1.0, weight),),
                    float(weight > 0),
                )
                for cell, weight in zip(parts.cells, parts.weights, strict=True)
            ]
        name = c.metric.replace("_", " ")
        self.pairs.append(at_least(principle.id, name, terms, c.line))

    def _right(self, group: Cell, outcome: int, *, condition: bool = True) -> int:
        """Adds the cell of a group's rows of a class (or of any other); its place."""
        self.cells.append(replace(group, outcome=outcome, condition=condition))
        return len(self.cells) - 1

    def _accuracy(self, group: Cell) -> Term:
        """Returns the share of a group's rows that is answered right, times -1."""
        wrong = self._error(group)
        weights = tuple(-w for w in wrong.weights)
        return Term(-1.0, wrong.cells, weights, 1 - wrong.constant)

    def _error(self, group: Cell) -> Term:
        """Returns the share of a group's rows that get a wrong answer.

        Two classes: s - s TPR + (1 - s) FPR, with s the positives' share; more:
        1 - the sum over classes of share times rate of right answers.
        """
        label = self._label[group.rows(self._groups, self._label)]
        counts = torch.bincount(label.long(), minlength=2).tolist()
        shares = [count / max(1, len(label)) for count in counts]
        # More than two by all labels: a group may lack one that the others have. Of
        # rows under attack soft rates bound right answers alone, not false alarms.
        if int(self._label.max()) > 1 or group.threat is not None:
            of_class = [(k, share) for k, share in enumerate(shares) if share]
            cells = [self._right(group, k) for k, _ in of_class]
            return Term(1.0, tuple(cells), tuple(-s for _, s in of_class), 1.0)
        parts = [(True, -shares[1]), (False, shares[0])]
        # A class without a row has no rate: 0 times what is no number is none either.
        parts = [(condition, weight) for condition, weight in parts if weight]
        cells = [self._right(group, 1, condition=c) for c, _ in parts]
        return Term(1.0, tuple(cells), tuple(w for _, w in parts), shares[1])

    def large_enough(self, principle: Principle, stratum: Cell) -> list[Cell]:
        """Returns the groups of a stratum to enforce; says why others are left out."""
        c, sizes = principle.constraint, self._sizes
        conditions = _CONDITIONS.get(c.metric, (None,))
        found = []
        for code, value in enumerate(self._values[stratum.group]):
            group = replace(stratum, code=code, value=value)
            label = self._label[group.rows(self._groups, self._label)]
            rows = len(label)
            # Of several outcomes the rarest decides, on either side.
            hits = [int((label == outcome).sum()) for outcome in self._outcomes] or [0]
            positives, negatives = min(hits), rows - max(hits)
            lack = None
            if rows < sizes.min_n:
                lack = f"{rows} rows, groups.min_n is {sizes.min_n}"
            elif True in conditions and positives < sizes.min_pos:
                lack = f"{positives} positives, groups.min_pos is {sizes.min_pos}"
            elif False in conditions and negatives < sizes.min_pos:
                lack = f"{negatives} negatives, groups.min_pos is {sizes.min_pos}"
            if lack is None:
                found.append(group)
            else:
                self.left_out.append(
                    f"{principle.id} is not enforced for {c.group} = {value!r}"
                    f"{_within(stratum)}: the rows that drive the multipliers hold "
                    f"{lack}."
                )
        # A gap needs two groups: with one left, the whole principle is silent.
        if len(found) == 1 and c.metric in _CONDITIONS:
            self.left_out.append(
                f"{principle.id} is not enforced{_within(stratum)}: only one value of "
                f"{c.group} has enough rows to compare."
            )
        return found


def _within(stratum: Cell) -> str:
    return f" given {stratum.given} = {stratum.at!r}" if stratum.given else ""
