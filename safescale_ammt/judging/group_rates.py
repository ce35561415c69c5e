"""What the sealed rows show: rates per group, and the point value of a metric.

Binary labels are judged on the positive class. With more classes, either one
class is declared positive (one against the rest), or a gap is the largest one over
the classes. Point values agree with fairlearn where they are defined. Where a group has
no row that a rate conditions on, that rate is not defined, and neither is what is made
of it: fairlearn reads it as 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.cells import Array
from safescale_ammt.errors import InputError, one_of
from safescale_ammt.judging.calibration import calibration_error
from safescale_ammt.judging.evidence import Evidence, IntArray
from safescale_ammt.judging.findings import kind_value, worst_value


@dataclass(frozen=True)
class Rates:
    """One kind of rate in every group.

    Attributes:
        of: `tpr`, `fpr`, `selection` or `error` (`tpr of class 2` with classes).
        hits: (..., g), leading axes are simulated draws.
        trials: (g,).
        stratum: value of the column within which groups are compared, "" of none.
        small: groups (g,) too small in this stratum; None: those of all rates are.
    """

    of: str
    hits: IntArray
    trials: IntArray
    stratum: str = ""
    small: NDArray[np.bool_] | None = None

    @property
    def points(self) -> Array:
        """Hits over trials, NaN where there are no trials."""
        points: Array = np.full(np.shape(self.hits), np.nan)
        np.divide(self.hits, self.trials, out=points, where=self.has_trials)
        return points

    @property
    def has_trials(self) -> NDArray[np.bool_]:
        """Marks the groups (g,) in which the rate is defined."""
        return np.asarray(self.trials > 0)

    def of_groups(self, chosen: NDArray[np.bool_]) -> Rates:
        """Returns the rates of the chosen groups (g,) only."""
        return replace(
            self,
            hits=self.hits[..., chosen],
            trials=self.trials[chosen],
            small=None if self.small is None else self.small[chosen],
        )


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
        stratum: value of the column within which groups are compared, "" of none.
    """

    values: tuple[str, ...]
    rows: IntArray
    positives: IntArray
    rates: tuple[Rates, ...]
    stratum: str = ""

    def too_small(self, min_n: int, min_pos: int) -> NDArray[np.bool_]:
        """Marks groups (g,) with too few rows, positives or trials of a rate."""
        small = (self.rows < min_n) | (self.positives < min_pos)
        # Positives alone do not bound a false positive rate: its trials count too.
        for rates in self.rates:
            small |= rates.trials < min_pos
        return np.asarray(small)


def group_tables(
    metric: str, evidence: Evidence, group: str, given: str | None = None
) -> tuple[GroupTable, ...]:
    """Counts the hits and trials of the rates that a metric compares.

    Returns:
        One table; with `given` one of each of its values.

    Raises:
        InputError: no such group.
    """
    if given is None:
        every = np.ones(len(evidence.label), dtype=bool)
        return (_table(metric, evidence, group, every),)
    strata, codes = evidence.group(given)
    tables = []
    for code, stratum in enumerate(strata):
        table = _table(metric, evidence, group, codes == code)
        rates = tuple(replace(rates, stratum=stratum) for rates in table.rates)
        tables.append(replace(table, rates=rates, stratum=stratum))
    return tuple(tables)


def _table(
    metric: str, evidence: Evidence, group: str, counted: NDArray[np.bool_]
) -> GroupTable:
    """Counts among the rows that are counted (n,)."""
    values, codes = evidence.group(group)
    size = len(values)
    classes = evidence.judged_classes
    label, prediction = evidence.label, evidence.prediction
    rates = []
    for kind in RATES_OF[metric]:
        # An error is one of all classes: it is counted once.
        for code in classes if kind != "error" else classes[:1]:
            among = {"tpr": label == code, "fpr": label != code}.get(kind, counted)
            among = among & counted
            hit = prediction != label if kind == "error" else prediction == code
            several = len(classes) > 1 and kind != "error"
            name = f"{kind} of class {code}" if several else kind
            hits = np.bincount(codes[hit & among], minlength=size)
            rates.append(Rates(name, hits, np.bincount(codes[among], minlength=size)))
    # `minlength` keeps the place of a group at the end that has no rows.
    rows = np.bincount(codes[counted], minlength=size)
    # Without one positive class `min_pos` bounds the rows.
    positives = rows
    if len(classes) == 1:
        positive = counted & (label == classes[0])
        positives = np.bincount(codes[positive], minlength=size)
    return GroupTable(values, rows, positives, tuple(rates))


def point_value(
    metric: str,
    evidence: Evidence,
    group: str | None = None,
    given: str | None = None,
) -> float | None:
    """Returns a metric's value on the rows, without any uncertainty.

    With `given` it is that of the stratum where it is worst. None where it is not
    defined: a group lacks the rows that a rate is taken over,
    there is but one group to compare, or the ratio is that of nobody to nobody.

    Raises:
        InputError: a group metric without a group, or an unknown metric or group.
    """
    if metric == "accuracy":
        return float(np.mean(evidence.prediction == evidence.label))
    if metric == "calibration_error":
        return calibration_error(evidence, group)
    if metric not in RATES_OF:
        raise InputError(
            f"No evaluator for metric {metric!r}, "
            f"{one_of([*RATES_OF, 'accuracy', 'calibration_error'], metric)}."
        )
    if group is None:
        raise InputError(f"{metric} compares groups, but no group was named.")
    return table_value(metric, group_tables(metric, evidence, group, given))


def table_value(metric: str, tables: Sequence[GroupTable]) -> float | None:
    """Returns the point value of a group metric from its tables, None if undefined."""
    every = [rates for table in tables for rates in table.rates]
    kinds = [rates.points.tolist() for rates in every]
    # A rate that nobody knows may be the one that breaks the promise.
    known = all(rates.has_trials.all() for rates in every)
    if not known or any(kind_value(metric, kind) is None for kind in kinds):
        return None
    return worst_value(metric, kinds)
