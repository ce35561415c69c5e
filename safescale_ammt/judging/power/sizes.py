"""The sizes at which a principle is judged, read from counts.

Before there is any model, all that is known of the sealed set are counts. They say
how many trials each rate has in each group, how many rows drive the multipliers, and
what rates may be assumed (see `laws`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.cells import Array
from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.constitution.principles import ATTACKED, Constraint
from safescale_ammt.data.counts import CROSSED, Counts, SplitCounts, Withheld
from safescale_ammt.judging.evidence import IntArray, judged_classes
from safescale_ammt.judging.group_rates import RATES_OF, GroupTable, Rates

SEALED = "sealed"
DUAL = ("train", "constraint")
"""Splits whose rows drive the multipliers."""
# The variance p (1 - p) is within 4 % of the largest one: whatever the model's rate
# will be, the power is hardly overestimated.
ASSUMED_TPR = 0.6


@dataclass(frozen=True)
class Sizes:
    """The sizes at which one principle is judged.

    Attributes:
        values: group values (g,); empty for accuracy.
        group_rows: sealed rows of each group (g,).
        kinds: names of the rates compared.
        trials: sealed trials per kind (k, g).
        dual: trials in train and constraint per kind (k, g).
        base: assumed rate per kind (k,).
        small: groups (g,) too small to be judged, as far as the counts tell.
        strata: the stratum of each kind (k,); () of what is compared in none.
        few: groups too small in their stratum (k, g), if there are strata.
        rows: sealed rows.
        hidden: those of them whose counts are hidden for the sake of small groups.
        beside: these small groups, as `column value`.
        labels: sealed rows per class (C,), as train and constraint lead one to expect.
        positive: code of the positive class; 1 if none is declared.
    """

    values: tuple[str, ...]
    group_rows: IntArray
    kinds: tuple[str, ...]
    trials: IntArray
    dual: IntArray
    base: Array
    small: NDArray[np.bool_]
    rows: int
    hidden: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    labels: IntArray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    positive: int = 1
    strata: tuple[str, ...] = ()
    few: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), bool))

    @property
    def too_small(self) -> tuple[str, ...]:
        """Names of the groups that are too small, each with its stratum."""
        if not self.strata:
            return tuple(
                v for v, low in zip(self.values, self.small, strict=True) if low
            )
        places = dict.fromkeys(
            (stratum, i)
            for stratum, few in zip(self.strata, self.few, strict=True)
            for i in np.flatnonzero(few).tolist()
        )
        return tuple(in_stratum(self.values[i], stratum) for stratum, i in places)

    def rates(self, k: int, hits: IntArray) -> Rates:
        """Returns drawn hits (..., g) of a kind as rates of its stratum."""
        if not self.strata:
            return Rates(self.kinds[k], hits, self.trials[k])
        of, stratum, few = self.kinds[k], self.strata[k], self.few[k]
        return Rates(of, hits, self.trials[k], stratum, few)

    @property
    def beyond_constant(self) -> float:
        """Share of the rows that the best constant answer gets wrong."""
        return 1 - float(self.labels.max()) / max(1, int(self.labels.sum()))

    def larger(self, factor: float, *, everywhere: bool = False) -> Sizes:
        """The same with `factor` times the sealed rows (`everywhere`: of all rows)."""
        # `small` stays: rows are not counted up for a principle with such a group.
        return replace(
            self,
            group_rows=np.ceil(self.group_rows * factor).astype(np.int64),
            trials=np.ceil(self.trials * factor).astype(np.int64),
            dual=np.ceil(self.dual * (factor if everywhere else 1)).astype(np.int64),
            rows=int(np.ceil(self.rows * factor)),
            labels=np.ceil(self.labels * factor).astype(np.int64),
        )


def principle_sizes(
    constraint: Constraint,
    counts: Counts,
    group_rule: GroupRule,
    shares: Sequence[float] = (),
) -> Sizes:
    """Reads the sizes of a principle from the counts; arguments as of `counted_sizes`.

    Of images under a battery so many rows are judged as it attacks.
    """
    found = counted_sizes(constraint, counts, group_rule, shares)
    threat = constraint.image_threat
    if threat is None or threat.most_rows is None or found.rows <= threat.most_rows:
        return found
    return found.larger(threat.most_rows / found.rows)


def counted_sizes(
    constraint: Constraint,
    counts: Counts,
    group_rule: GroupRule,
    shares: Sequence[float] = (),
) -> Sizes:
    """Reads the sizes of a principle from the counts.

    Args:
        constraint: what is promised.
        counts: rows by group and class of every split.
        group_rule: which groups are large enough.
        shares: of the classes in development; () = from the counts of a group
            column, and equal if there is none.

    Raises:
        InputError: the counts lack a split or the principle's group.
    """
    total = counts.split(SEALED).rows
    positive = counts.classes.index(counts.positive) if counts.positive else None
    attacked = constraint.metric in ATTACKED
    if constraint.metric not in RATES_OF and not (attacked and constraint.group):
        none, small = np.zeros((0, 0), dtype=np.int64), np.zeros(0, dtype=bool)
        shares = shares or class_shares(counts)
        return Sizes(
            *((), none.ravel(), (), none, none, np.zeros(0), small, total),
            # Of a class that there is at least one row is expected, so that more rows
            # can be counted up from it.
            labels=np.array([max(round(total * s), int(s > 0)) for s in shares]),
            positive=1 if positive is None else positive,
        )
    tables = _tables(constraint, counts)
    classes = judged_classes(len(counts.classes), positive)
    kinds = [
        (kind, code)
        # Under attack every row of a group is a trial, as with errors.
        for kind in (("error",) if attacked else RATES_OF[constraint.metric])
        for code in (classes if kind != "error" else (0,))
    ]
    found = [stratum_sizes(t, kinds, classes, group_rule) for t in tables]
    column = constraint.group or ""
    if constraint.given:
        column = counts.cross(SEALED, column, constraint.given)
    unknown, beside = _hidden(counts.split(SEALED), column, group_rule.min_n)
    names = tuple(f"{kind} of class {code}" for kind, code in kinds)
    sizes = Sizes(
        values=tables[0].values,
        group_rows=np.sum([t.rows for t in tables], axis=0),
        kinds=names * len(tables),
        trials=np.concatenate([f.trials for f in found]),
        dual=np.concatenate([f.dual for f in found]),
        base=np.concatenate([f.base for f in found]),
        small=np.any([f.small for f in found], axis=0),
        rows=total,
        beside=beside,
    )
    if constraint.given:
        sizes = replace(
            sizes,
            strata=tuple(t.stratum for t in tables for _ in kinds),
            few=np.stack([f.small for f in found for _ in kinds]),
        )
    untold = {
        in_stratum(value, table.stratum)
        for table in tables
        for value in table.values
        if unknown & spellings(value, table.stratum)
    }
    hidden = tuple(name for name in sizes.too_small if name in untold)
    return replace(sizes, hidden=hidden)


def in_stratum(value: str, stratum: str) -> str:
    """Names a group of a stratum, as findings do."""
    return f"{value} in {stratum}" if stratum else value


def spellings(value: str, stratum: str) -> set[str]:
    """Returns how the counts may name a group, or a cross a group of a stratum."""
    if not stratum:
        return {value}
    return {CROSSED.join((value, stratum)), CROSSED.join((stratum, value))}


@dataclass(frozen=True)
class _Table:
    """Counts of the groups of one stratum (or of all rows): sealed, then dual."""

    stratum: str
    values: tuple[str, ...]
    rows: IntArray
    labels: IntArray
    dual_rows: IntArray
    dual_labels: IntArray


def _tables(constraint: Constraint, counts: Counts) -> list[_Table]:
    """Reads the counts of the groups, stratum by stratum."""
    group, given = constraint.group or "", constraint.given
    if not given:
        values, rows, labels = counts.table(SEALED, group)
        return [_Table("", values, rows, labels, *_dual_counts(counts, group, values))]
    values, strata, rows, labels = counts.crossed(SEALED, group, given)
    dual_rows, dual_labels = np.zeros_like(rows), np.zeros_like(labels)
    for split in DUAL:
        own_values, own_strata, own_rows, own_labels = counts.crossed(
            split, group, given
        )
        at = np.ix_(
            [values.index(v) for v in own_values], [strata.index(s) for s in own_strata]
        )
        dual_rows[at] += own_rows
        dual_labels[at] += own_labels
    return [
        _Table(
            *(stratum, values, rows[:, j], labels[:, j]),
            *(dual_rows[:, j], dual_labels[:, j]),
        )
        for j, stratum in enumerate(strata)
    ]


class _StratumSizes(NamedTuple):
    """Trials and their likes per kind (k, g) of one stratum, base (k,), small (g,)."""

    trials: IntArray
    dual: IntArray
    base: Array
    small: NDArray[np.bool_]


def stratum_sizes(
    table: _Table,
    kinds: Sequence[tuple[str, int]],
    classes: Sequence[int],
    group_rule: GroupRule,
) -> _StratumSizes:
    """Reads what the counts of one stratum say of each kind of rate."""
    rows, labels = table.rows, table.labels
    dual_rows, dual_labels = table.dual_rows, table.dual_labels
    trials = [_trials(kind, rows, labels, code) for kind, code in kinds]
    share = np.full(labels.shape[1], 1 / labels.shape[1])
    if dual_rows.sum():
        share = dual_labels.sum(axis=0) / dual_rows.sum()
    # The judge's own rule says which groups are too small.
    judged = GroupTable(
        table.values,
        rows,
        labels[:, classes[0]] if len(classes) == 1 else rows,
        tuple(Rates("", np.zeros_like(t), t) for t in trials),
    )
    return _StratumSizes(
        np.array(trials),
        np.array([_trials(k, dual_rows, dual_labels, c) for k, c in kinds]),
        np.array([_assumed_rate(kind, float(share[code])) for kind, code in kinds]),
        judged.too_small(group_rule.min_n, group_rule.min_pos),
    )


def class_shares(counts: Counts) -> tuple[float, ...]:
    """Returns each class's share of train and constraint, equal where untold."""
    for group in counts.split(DUAL[0]).groups:
        values = counts.table(DUAL[0], group)[0]
        rows = _dual_counts(counts, group, values)[1].sum(axis=0)
        return tuple((rows / max(1, rows.sum())).tolist())
    return (1 / len(counts.classes),) * len(counts.classes)


def _hidden(
    split: SplitCounts, group: str, min_n: int
) -> tuple[set[str], tuple[str, ...]]:
    """Values of a group column that may be large enough, but for hidden counts.

    Returns:
        These values, and the small ones for whose sake: of the same column if it has
        any, else of all columns.
    """
    small = split.withheld(Withheld.SMALL)
    hidden = set(split.withheld(Withheld.HIDDEN).get(group, ()))
    few = {
        value
        for value, cell in split.groups[group].items()
        if not isinstance(cell.rows, Withheld) and cell.rows < min_n
    }
    columns = [group] if group in small else sorted(small)
    beside = tuple(f"{name} {value}" for name in columns for value in small[name])
    return hidden - few - set(small.get(group, ())), beside if hidden else ()


def _dual_counts(
    counts: Counts, group: str, values: tuple[str, ...]
) -> tuple[IntArray, IntArray]:
    """Rows (g,) and rows per class (g, C) behind the multipliers, in sealed order."""
    rows = np.zeros(len(values), dtype=np.int64)
    labels = np.zeros((len(values), len(counts.classes)), dtype=np.int64)
    for split in DUAL:
        names, split_rows, split_labels = counts.table(split, group)
        for i, value in enumerate(values):
            if value in names:
                rows[i] += split_rows[names.index(value)]
                labels[i] += split_labels[names.index(value)]
    return rows, labels


def _trials(kind: str, rows: IntArray, labels: IntArray, code: int) -> IntArray:
    if kind == "tpr":
        return labels[:, code]
    # Summed, not subtracted: where a count is hidden the least of each class is
    # known, and rows minus the least positives would be too many negatives.
    return labels.sum(axis=1) - labels[:, code] if kind == "fpr" else rows


def _assumed_rate(kind: str, share: float) -> float:
    """The rate that a kind is assumed near, for a class with this share of the rows."""
    if kind == "tpr":
        return ASSUMED_TPR
    if kind == "selection":
        return share
    # As many rows are selected as are in the class, so that the false positives make
    # up for the positives missed. A rate above one half has no larger variance.
    wrong = share * (1 - ASSUMED_TPR) / max(1 - share, 1e-9)
    return min(0.5, wrong) if kind == "fpr" else 0.0
