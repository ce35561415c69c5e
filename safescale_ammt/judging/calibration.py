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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from safescale_ammt.judging.evidence import Evidence

BINS = 15
METHOD = "McDiarmid"


def calibration_error(
    evidence: Evidence, group: str | None = None, bins: int = BINS
) -> float:
    """Expected calibration error on equal-mass bins; the worst group's, if grouped.

    sum over bins of |hits - sum of scores| / n (Naeini et al. 2015), with bins cut
    at quantiles of the score, equal scores in one bin. A score that is not finite
    means nothing at all: the error is then 1.
    """
    return max(error for error, _ in binned_errors(evidence, group, bins).values())


def binned_errors(
    evidence: Evidence, group: str | None, bins: int = BINS
) -> Mapping[str, tuple[float, int]]:
    """Calibration error and rows of every group with rows ("all" without group)."""
    every = np.ones(len(evidence.label), dtype=bool)
    parts = {"all": every}
    if group is not None:
        values, codes = evidence.group(group)
        parts = {value: codes == i for i, value in enumerate(values)}
    return {
        value: (_binned_error(evidence, part, bins), int(part.sum()))
        for value, part in parts.items()
        if part.any()
    }


def error_bounds(
    error: float, rows: int, alpha: float, bins: int = BINS
) -> tuple[float, float]:
    """Bounds (lower, upper) of the true binned error, each one-sided at alpha."""
    reach = math.sqrt(math.log(1 / alpha) / (2 * rows))
    lower = error - _bias(rows, bins) - reach
    return max(0.0, lower), min(1.0, error + reach)


def p_exceeds(error: float, rows: int, line: float, bins: int = BINS) -> float:
    """One-sided p-value of "the true binned error exceeds the line"."""
    excess = error - _bias(rows, bins) - line
    return math.exp(-2 * rows * excess**2) if excess > 0 else 1.0


def _bias(rows: int, bins: int) -> float:
    return 0.5 * math.sqrt(bins / rows)


def _binned_error(evidence: Evidence, rows: NDArray[Any], bins: int) -> float:
    score = evidence.score[rows]
    if not np.isfinite(score).all():
        return 1.0
    one = evidence.judged_classes
    truth = one[0] if len(one) == 1 else evidence.prediction[rows]
    gap = (evidence.label[rows] == truth) - score
    edges = np.unique(np.quantile(score, np.arange(1, bins) / bins, method="lower"))
    sums = np.bincount(np.searchsorted(edges, score, side="right"), gap)
    return float(np.abs(sums).sum() / len(score))
