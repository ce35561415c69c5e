"""fairlearn: ExponentiatedGradient (blind) and ThresholdOptimizer (aware).

As its user guide does: the reduction wraps an estimator that takes sample weights, its
`difference_bound` is the gap aimed at but not below the default of .01, and it answers
at random among its classifiers, here from a fixed seed. `eps`, `nu` and all else keep
their defaults, but the number of rounds, of up to three fits each: 15 over trees and 5
over nets, not 50, of which one re-split would take longer than all else here. No other
setting was tried.
The optimizer gets a fitted estimator, `prefit`, and rows to fit thresholds on; it knows
no tolerance and makes rates equal. Tried: all development rows, or the untrained.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import (
    DemographicParity,
    EqualizedOdds,
    ExponentiatedGradient,
    TruePositiveRateParity,
)
from sklearn.base import BaseEstimator, ClassifierMixin

from benchmarks.peers.bases import CLOSED, OPEN, Base
from benchmarks.transfer_tasks import Answer, Case

LEAST_BOUND = 0.01
ROUNDS = {CLOSED: 5, OPEN: 15}
MOMENTS = {
    "tpr_gap": TruePositiveRateParity,
    "dp_gap": DemographicParity,
    "eo_difference": EqualizedOdds,
}
PARITIES = {
    "tpr_gap": "true_positive_rate_parity",
    "dp_gap": "demographic_parity",
    "eo_difference": "equalized_odds",
}


def reductions(case: Case, base: Base, aim: float) -> Answer:
    """Answers by the exponentiated gradient."""
    rows = case.rows(*base.pool)
    moment = MOMENTS[case.task.metric](difference_bound=max(aim, LEAST_BOUND))
    model = ExponentiatedGradient(
        base.estimator(), moment, max_iter=ROUNDS[base.division]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows.x, rows.y, sensitive_features=rows.group)
        prediction = model.predict(case.sealed.x, random_state=0)
        chance = model._pmf_predict(case.sealed.x)[:, 1]  # noqa: SLF001
    return Answer(np.asarray(prediction, dtype=np.int64), chance)


class Scored(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that was fitted elsewhere: its input is its score."""

    def fit(self, x: Any, y: Any) -> Scored:
        """Takes note of the classes."""
        self.classes_ = np.unique(y)
        self.fitted_ = len(x)
        return self

    def predict_proba(self, x: Any) -> Any:
        """Returns both chances (n, 2)."""
        score = np.asarray(x)[:, 0]
        return np.stack([1 - score, score], 1)


def thresholds(case: Case, base: Base, aim: float, rows: str = "all") -> Answer:  # noqa: ARG001
    """Answers by thresholds for each group."""
    (known, score), sealed = base.on(case, rows), base.sealed(case)
    frame = pd.DataFrame({"score": score})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ThresholdOptimizer(
            estimator=Scored().fit(frame, known.y),
            constraints=PARITIES[case.task.metric],
            objective="accuracy_score",
            prefit=True,
            predict_method="predict_proba",
        )
        model.fit(frame, known.y, sensitive_features=known.group)
        prediction = model.predict(
            pd.DataFrame({"score": sealed}),
            sensitive_features=case.sealed.group,
            random_state=0,
        )
    return Answer(np.asarray(prediction, dtype=np.int64), sealed)
