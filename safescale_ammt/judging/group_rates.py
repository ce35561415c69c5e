"""What the sealed rows show: rates per group, and the point value of a metric.

Binary labels are judged on the positive class. With more classes, either one
class is declared positive (one against the rest), or a gap is the largest one over
the classes. Point values agree with fairlearn; where a group has no row that a
rate conditions on, the rate reads 0, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.supremum import Array
from safescale_ammt.errors import InputError, one_of
from safescale_ammt.judging.calibration import binned_errors
from safescale_ammt.judging.evidence import Evidence, IntArray


@dataclass(frozen=True)
class Rates:
    """One kind of rate in every group.

    Attributes:
        of: `tpr`, `fpr`, `selection` or `error` (`tpr of class 2` with classes).
        hits: (..., g), leading axes are simulated draws.
        trials: (g,).
    """

    of: str
    hits: IntArray
    trials: IntArray

    @property
    def points(self) -> Array:
        """Hits over trials, 0 where there are no trials."""
        # fairlearn's convention, with which point values have to agree.
        points: Array = self.hits / np.maximum(self.trials, 1)
        return points

    def of_groups(self, chosen: NDArray[np.bool_]) -> Rates:
        """Returns the rates of the chosen groups (g,) only."""
        return Rates(self.of, self.hits[..., chosen], self.trials[chosen])


RATES_OF = {
    "dp_gap": ("selection",),
    "dp_ratio": ("selection",),
    "tpr_gap": ("tpr",),
    "fpr_gap": ("fpr",),
    "eo_difference": ("tpr", "fpr"),
    "worst_group_error": ("error",),
}
"""The rates that each group metric compares."""


@dataclass(frozen=True)
class GroupTable:
    """Rates by group with the counts that say which groups are large enough.

    Attributes:
        values: group values (g,).
        rows: rows (g,).
        positives: rows of the positive class (g,); rows, if there is none.
        rates: one entry per kind of rate (and class).
    """

    values: tuple[str, ...]
    rows: IntArray
    positives: IntArray
    rates: tuple[Rates, ...]

    def too_small(self, min_n: int, min_pos: int) -> NDArray[np.bool_]:
        """Marks groups (g,) with too few rows, positives or trials of a rate."""
        small = (self.rows < min_n) | (self.positives < min_pos)
        # Positives alone do not bound a false positive rate: its trials count too.
        for rates in self.rates:
            small |= rates.trials < min_pos
        return np.asarray(small)


def group_table(metric: str, evidence: Evidence, group: str) -> GroupTable:
    """Counts the hits and trials of the rates that a metric compares.

    Raises:
        InputError: no such group.
    """
    values, codes = evidence.group(group)
    size = len(values)
    classes = evidence.judged_classes
    label, prediction = evidence.label, evidence.prediction
    every = np.ones(len(label), dtype=bool)
    rates = []
    for kind in RATES_OF[metric]:
        # An error is one of all classes: it is counted once.
        for code in classes if kind != "error" else classes[:1]:
            among = {"tpr": label == code, "fpr": label != code}.get(kind, every)
            hit = prediction != label if kind == "error" else prediction == code
            several = len(classes) > 1 and kind != "error"
            name = f"{kind} of class {code}" if several else kind
            hits = np.bincount(codes[hit & among], minlength=size)
            rates.append(Rates(name, hits, np.bincount(codes[among], minlength=size)))
    # `minlength` keeps the place of a group at the end that has no rows.
    rows = np.bincount(codes, minlength=size)
    # Without one positive class `min_pos` bounds the rows.
    positives = rows
    if len(classes) == 1:
        positives = np.bincount(codes[evidence.label == classes[0]], minlength=size)
    return GroupTable(values, rows, positives, tuple(rates))


def point_value(metric: str, evidence: Evidence, group: str | None = None) -> float:
    """Returns a metric's value on the rows, without any uncertainty.

    Groups without rows do not take part. `dp_ratio` is 1 if nobody is selected.

    Raises:
        InputError: a group metric without a group, or an unknown metric or group.
    """
    if metric == "accuracy":
        return float(np.mean(evidence.prediction == evidence.label))
    if metric == "calibration_error":
        return max(error for error, _ in binned_errors(evidence, group).values())
    if metric not in RATES_OF:
        raise InputError(
            f"No evaluator for metric {metric!r}, "
            f"{one_of([*RATES_OF, 'accuracy', 'calibration_error'], metric)}."
        )
    if group is None:
        raise InputError(f"{metric} compares groups, but no group was named.")
    return table_value(metric, group_table(metric, evidence, group))


def table_value(metric: str, table: GroupTable) -> float:
    """Returns the point value of a group metric from its table."""
    # An empty group would read as rate 0 and make a gap of nothing.
    present = [rates.points[table.rows > 0] for rates in table.rates]
    if metric == "worst_group_error":
        return max(float(p.max()) for p in present)
    if metric == "dp_ratio":
        # Nobody selected anywhere: all are treated alike.
        return min(float(p.min() / p.max()) if p.max() > 0 else 1.0 for p in present)
    return max(float(p.max() - p.min()) for p in present)
