"""The decision threshold: from which score on a row is answered positive.

One half is right where both errors cost the same and scores are chances. For a rare
class or a stated cost the threshold is chosen by

    balanced accuracy   max  TP(t) / P  +  TN(t) / N
    cost                max  false_negative TP(t)  +  false_positive TN(t)

on rows of *select*, never on sealed ones. It is the last step of an answer: scores
are corrected by the fair head first, and stay as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.config.sections import Threshold
from safescale_ammt.data.schema import Schema
from safescale_ammt.errors import ConfigError

BALANCED: Threshold = {"objective": "balanced_accuracy"}
"""The rule of a rare class."""
HALF = 0.5
MOST = 64
"""Thresholds that are looked at, evenly spaced over the rows."""


def require_two_classes(rule: Threshold, schema: Schema) -> None:
    """Refuses a threshold for a label that it cannot part.

    Raises:
        ConfigError: there is a rule, and there are more than two classes.
    """
    if rule and len(schema.classes) > 2:
        raise ConfigError(
            f"training.threshold parts two classes, but {schema.label} has "
            f"{len(schema.classes)}; leave it out."
        )


def right_weights(positive: NDArray[np.bool_], rule: Threshold) -> NDArray[np.float64]:
    """Returns what a right answer of each row is worth by the rule (n,).

    Without a rule each is worth 1, so that their mean is the accuracy.
    """
    if not rule:
        return np.ones(len(positive))
    if rule["objective"] == "cost":
        worth = np.array([rule["false_positive"], rule["false_negative"]])
    else:
        # A class without rows has no row that its weight is given to.
        worth = len(positive) / (2.0 * np.bincount(positive, minlength=2).clip(min=1))
    weights: NDArray[np.float64] = worth[positive.astype(np.int64)]
    return weights


def ranked_thresholds(
    score: NDArray[np.float64], positive: NDArray[np.bool_], rule: Threshold
) -> list[float]:
    """Returns thresholds between the scores, the best by the rule first.

    A threshold that answers all rows alike is none of them. Equally good ones stand
    in the order of their distance from one half. Rows of one class alone do not say
    where to part two: one half stays.

    Args:
        score: scores of the rows (n,).
        positive: which rows are positive (n,).
        rule: the section's `threshold`; empty: one half alone.
    """
    values = np.unique(score)
    if not rule or len(values) < 2 or len(np.unique(positive)) < 2:
        return [HALF]
    # Between two neighbouring scores: a score on its threshold is answered positive.
    cuts = (values[1:] + values[:-1]) / 2
    if len(cuts) > MOST:
        # By rows and not by values: where many rows lie, the cuts lie closer.
        shares = np.quantile(score, np.linspace(0, 1, MOST + 2)[1:-1], method="lower")
        at = np.searchsorted(values, np.unique(shares))
        cuts = cuts[np.minimum(at, len(cuts) - 1)]
    right = (score[None] >= cuts[:, None]) == positive
    worth = right @ right_weights(positive, rule)
    order = sorted(range(len(cuts)), key=lambda i: (-worth[i], abs(cuts[i] - HALF)))
    return [float(cuts[i]) for i in order]
