"""Calibration error on equal-mass bins, with finite-sample bounds.

For fixed scores and bins the binned error is a function of n independent labels of
which each moves it by at most 1/n, so that by McDiarmid (1989) it lies within
t = sqrt(log(1/alpha) / 2n) of its mean on either side with probability 1 - alpha.
Its mean exceeds the true binned error by at most sqrt(B / n) / 2 (Jensen on one
side, the B standard deviations sqrt(n_b) / 2 on the other). The bounds are honest
but speak of the bins, not of every score: the metric can only be soft.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from safescale_ammt.binomial.cells import Array

if TYPE_CHECKING:
    from safescale_ammt.judging.evidence import Evidence

BINS = 15
AT_ONCE = 1 << 17
"""Rows whose bins are found at once."""
METHOD = "McDiarmid"


def calibration_error(
    evidence: Evidence, group: str | None = None, bins: int = BINS
) -> float | None:
    """Expected calibration error on equal-mass bins; the worst group's, if grouped.

    sum over bins of |hits - sum of scores| / n (Naeini et al. 2015), with bins cut
    at quantiles of the score, equal scores in one bin. None where a group has no rows,
    or a score that is not finite.
    """
    errors = [error for error, _ in binned_errors(evidence, group, bins).values()]
    known = [error for error in errors if error is not None]
    return max(known) if len(known) == len(errors) else None


def binned_errors(
    evidence: Evidence, group: str | None, bins: int = BINS
) -> Mapping[str, tuple[float | None, int]]:
    """Calibration error and rows of every group ("all" without group).

    Raises:
        InputError: no such group.
    """
    values: tuple[str, ...] = ("all",)
    codes = np.zeros(len(evidence.label), dtype=np.int64)
    if group is not None:
        values, codes = evidence.group(group)
    classes = evidence.judged_classes
    errors = {}
    for code, value in enumerate(values):
        rows = codes == code
        score = evidence.score[rows]
        error = None
        if rows.any() and np.isfinite(score).all():
            # Of several classes the score is the predicted one's: a hit is being right.
            truth = classes[0] if len(classes) == 1 else evidence.prediction[rows]
            hits = evidence.label[rows] == truth
            edges = bin_edges(score, bins)
            sums = np.zeros(len(edges) + 1)
            # Row after row, as all at once would be added.
            for at in range(0, len(score), AT_ONCE):
                part = score[at : at + AT_ONCE]
                place = np.searchsorted(edges, part, side="right")
                np.add.at(sums, place, hits[at : at + AT_ONCE] - part)
            error = float(np.abs(sums).sum() / len(score))
        errors[value] = error, int(rows.sum())
    return errors


def bin_edges(score: Array, bins: int) -> Array:
    """Returns the edges of bins of equal mass, sorted and distinct.

    A score of the data is an edge, none lies between two: equal scores share a bin.
    """
    shares = np.arange(1, bins) / bins
    return np.unique(np.quantile(score, shares, method="lower"))


def error_bounds(
    error: float, rows: int, alpha: float, bins: int = BINS
) -> tuple[float, float]:
    """Bounds (lower, upper) of the true binned error, each one-sided at alpha."""
    deviation = math.sqrt(math.log(1 / alpha) / (2 * rows))
    # The bias only raises the measured error: the upper bound needs no share of it.
    lower = error - _bias(rows, bins) - deviation
    return max(0.0, lower), min(1.0, error + deviation)


def p_exceeds(error: float, rows: int, line: float, bins: int = BINS) -> float:
    """One-sided p-value of "the true binned error exceeds the line"."""
    # The lower bound of `error_bounds` set on the line and solved for alpha.
    excess = error - _bias(rows, bins) - line
    return math.exp(-2 * rows * excess**2) if excess > 0 else 1.0


def _bias(rows: int, bins: int) -> float:
    """Most by which the mean of the binned error exceeds the true one."""
    return 0.5 * math.sqrt(bins / rows)
