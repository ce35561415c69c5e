"""Skill: measures of use that a rare class does not blind.

    recall             P(answered yes | yes)         Clopper-Pearson
    precision          P(yes | answered yes)         Clopper-Pearson
    balanced accuracy  mean over classes of P(right | class)
                       two classes: (1 + TPR - FPR) / 2, by the test of two rates;
                       more: Hoeffding
    AUC                P(a positive's score > a negative's) + half of the ties
                       Hoeffding

The first two are rates and are judged as accuracy is, on their own denominators.
The others are counted here. Sources and proofs: docs/mathematical_foundations.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.cells import Array
from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.intervals import mean_bounds, mean_p_below
from safescale_ammt.binomial.two_rates import (
    difference_lower,
    difference_upper,
    method,
    p_above,
    shows_below,
)
from safescale_ammt.errors import InputError
from safescale_ammt.judging.evidence import Evidence, IntArray, parts_of
from safescale_ammt.judging.findings import NO_METHOD
from safescale_ammt.judging.profile import positive_code

RATES = ("precision", "recall")
ONE_CLASS = ("auc", *RATES)
"""Metrics that speak of one class, the positive one."""
HOEFFDING = "Hoeffding"
Limits = tuple[float, float, float, str]
"""Lower and upper bound, p-value of a violation, method: as in `bounds.Bounds`."""


@dataclass(frozen=True)
class TwoClassHits:
    """Balanced accuracy of two classes; hits are (...,) arrays.

    Attributes:
        found: positives that are answered positive.
        alarms: negatives that are answered positive.
        positives, negatives: sealed rows of either class.
    """

    found: IntArray
    alarms: IntArray
    positives: int
    negatives: int

    @property
    def has_value(self) -> bool:
        """Whether both classes have rows."""
        return self.positives > 0 and self.negatives > 0

    @property
    def value(self) -> Array:
        """(1 + TPR - FPR) / 2, NaN where a class has no rows."""
        if not self.has_value:
            return np.full(np.shape(self.found), np.nan)
        found = self.found / self.positives
        value: Array = (1 + found - self.alarms / self.negatives) / 2
        return value

    def shows_above(
        self, at: float, alpha: float, *, normal: bool = False
    ) -> NDArray[np.bool_]:
        """Tells which draws show a balanced accuracy above `at`."""
        if not self.has_value:
            return np.zeros(np.shape(self.found), dtype=bool)
        # (1 + TPR - FPR) / 2 > at reads FPR < TPR - (2 at - 1).
        line = self._line(at).swapped
        return shows_below(self.alarms, self.found, line, alpha, normal=normal)

    def shows_below(self, at: float, level: float) -> NDArray[np.bool_]:
        """Tells which draws show one below `at`."""
        if not self.has_value:
            return np.zeros(np.shape(self.found), dtype=bool)
        return shows_below(self.found, self.alarms, self._line(at), level)

    def bounds(self, at: float, alpha: float) -> Limits:
        """Bounds of one draw, and the p-value of "below `at`"."""
        numbers = int(self.found), self.positives, int(self.alarms), self.negatives
        if not self.has_value:
            return 0.0, 1.0, 1.0, NO_METHOD
        lower = difference_lower(*numbers, alpha)
        upper = difference_upper(*numbers, alpha)
        p = p_above(numbers[2], numbers[0], self._line(at).swapped, alpha)
        return (1 + lower) / 2, (1 + upper) / 2, p, method(self._line(at))

    def _line(self, at: float) -> Line:
        return Line("difference", 2 * at - 1, self.positives, self.negatives)


@dataclass(frozen=True)
class MeanHits:
    """A mean over `units` independent groups of rows, (...,): AUC, many recalls.

    Without units the value is NaN.
    """

    value: Array
    units: int

    @property
    def has_value(self) -> bool:
        """Whether there is anything to take a mean over."""
        return self.units > 0

    def shows_above(
        self, at: float, alpha: float, *, normal: bool = False
    ) -> NDArray[np.bool_]:
        """Tells which draws show a mean above `at`; there is no normal law of it."""
        del normal
        return np.asarray(mean_p_below(1 - self.value, self.units, 1 - at) <= alpha)

    def shows_below(self, at: float, level: float) -> NDArray[np.bool_]:
        """Tells which draws show one below `at`."""
        return np.asarray(mean_p_below(self.value, self.units, at) <= level)

    def bounds(self, at: float, alpha: float) -> Limits:
        """Bounds of one draw, and the p-value of "below `at`"."""
        if not self.has_value:
            return 0.0, 1.0, 1.0, NO_METHOD
        p = float(mean_p_below(self.value, self.units, at))
        return *mean_bounds(float(self.value), self.units, alpha), p, HOEFFDING


SkillHits = TwoClassHits | MeanHits


def one_class(evidence: Evidence) -> int:
    """Returns the code of the one class that the metric speaks of.

    Raises:
        InputError: there are more than two classes and none is declared positive.
    """
    if (code := positive_code(evidence)) is None:
        raise InputError(
            f"{', '.join(ONE_CLASS)} speak of one class, but the labels have "
            f"{evidence.classes} and none is declared positive (data.positive)."
        )
    return code


def area(evidence: Evidence) -> MeanHits:
    """Measures the area under the ROC curve, (Mann and Whitney 1947) ties by half.

    The statistic is an average, over orders of the rows, of means of
    min(positives, negatives) independent pairs.
    """
    positive = evidence.label == one_class(evidence)
    n1, n0 = int(positive.sum()), int((~positive).sum())
    # A score that is not finite ranks nothing (and fails the evidence anyhow).
    if not n1 or not n0 or not np.isfinite(evidence.score).all():
        return MeanHits(np.asarray(np.nan), 0)
    whole, own = np.sort(evidence.score), evidence.score[positive]
    own.sort()
    # Of equal scores each has the mean of their ranks, here twice: whole numbers.
    ranks = 0
    for part in parts_of(own):
        low, high = (np.searchsorted(whole, part, side) for side in ("left", "right"))
        ranks += int(low.sum()) + int(high.sum()) + len(part)
    area = (ranks / 2 - n1 * (n1 + 1) / 2) / (n1 * n0)
    return MeanHits(np.asarray(area), min(n1, n0))


def balance(evidence: Evidence) -> TwoClassHits | MeanHits:
    """Counts right answers class by class."""
    label, right = evidence.label, evidence.prediction == evidence.label
    rows = np.bincount(label, minlength=evidence.classes)
    hits = np.bincount(label[right], minlength=evidence.classes)
    if evidence.classes == 2:
        n0, n1 = map(int, rows)
        return TwoClassHits(hits[1], np.asarray(n0 - hits[0]), n1, n0)
    # Of a class without rows nobody knows how often it is answered right.
    value = (hits / rows).mean() if rows.all() else np.nan
    return MeanHits(np.asarray(value), int(rows.min()))


def rate_hits(metric: str, evidence: Evidence) -> tuple[int, int]:
    """Counts hits and trials of `precision` or `recall`."""
    code = one_class(evidence)
    is_yes, says_yes = evidence.label == code, evidence.prediction == code
    trials = says_yes if metric == "precision" else is_yes
    return int((is_yes & says_yes).sum()), int(trials.sum())
