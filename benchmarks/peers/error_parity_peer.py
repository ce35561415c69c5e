"""error-parity: the linear programme over groups' ROC curves (aware).

As its README does: a callable predictor, the constraint by name and the gap aimed at
as its tolerance; it answers at random between thresholds, from its own fixed seed. It
asks for numpy below 2 and an older cvxpy; with those of today it makes rates equal on
the rows that it is fitted on, as it should.
Tried: all development rows, or the untrained.
"""

from __future__ import annotations

import warnings

import numpy as np

from benchmarks.peers.bases import Base
from benchmarks.peers.fairlearn_peer import PARITIES
from benchmarks.transfer_tasks import Answer, Case


def error_parity(case: Case, base: Base, aim: float, rows: str = "all") -> Answer:
    """Answers by its relaxed optimum."""
    from error_parity import RelaxedThresholdOptimizer

    (known, score), sealed = base.on(case, rows), base.sealed(case)
    model = RelaxedThresholdOptimizer(
        predictor=lambda x: x[:, 0],
        constraint=PARITIES[case.task.metric],
        tolerance=aim,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(X=score[:, None], y=known.y, group=known.group)
        prediction = model(X=sealed[:, None], group=case.sealed.group)
    return Answer(np.asarray(prediction).astype(np.int64), sealed)
