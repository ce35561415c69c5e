"""OxonFair: thresholds by known groups (aware), or by inferred ones (blind).

As its README does: over a fitted predictor `FairPredictor`, fitted for accuracy under
the gap aimed at; where groups are not known at prediction, by a second model of the
same kind that infers them, with its default of 2/3 for a group that is uncertain. For
nets it recommends `DeepFairPredictor` with a head for the group, which is the hybrid
search of the same predictor: that is what the blind one uses in the closed division. An
exact 0 it reaches by one answer for everybody, so that it is asked for a least gap.
Tried: all development rows, or the untrained; a least gap of .005 or of .02.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.bases import CLOSED, Base
from benchmarks.transfer_tasks import Answer, Case

GAPS = {
    "tpr_gap": "equal_opportunity",
    "dp_gap": "demographic_parity",
    "eo_difference": "equalized_odds_max",
}
Scores = NDArray[Any]


def both(score: Scores) -> Scores:
    """Returns the chances of both classes (n, 2)."""
    return np.stack([1 - score, score], 1)


def aware(
    case: Case, base: Base, aim: float, rows: str = "all", least: float = 0.005
) -> Answer:
    """Answers by thresholds of the groups that are told."""
    known, score = base.on(case, rows)
    sealed, target = base.sealed(case), max(aim, least)
    told = (score[:, None], known.group), (sealed[:, None], case.sealed.group)
    return answered(case, known.y, told, target, sealed)


def inferred(
    case: Case, base: Base, aim: float, rows: str = "all", least: float = 0.005
) -> Answer:
    """Answers by thresholds of the groups that a second model infers."""
    known, score = base.on(case, rows)
    sealed, target = base.sealed(case), max(aim, least)
    name = f"{base.division} groups of "
    guess = case.shared(name + rows, lambda: base.group_score(known.x))
    asked = case.shared(name + "sealed", lambda: base.group_score(case.sealed.x))
    told = (
        (np.stack([score, guess], 1), known.group),
        (np.stack([sealed, asked], 1), case.sealed.group),
    )
    options: dict[str, Any] = {"inferred_groups": lambda x: both(x[:, 1])}
    if base.division == CLOSED:
        options |= {"use_fast": "hybrid"}
    return answered(case, known.y, told, target, sealed, **options)


def answered(
    case: Case,
    label: Scores,
    told: tuple[tuple[Scores, Scores], tuple[Scores, Scores]],
    target: float,
    sealed: Scores,
    **options: Any,
) -> Answer:
    """Fits the predictor on the first rows and answers the second."""
    from oxonfair import FairPredictor, group_metrics

    logging.getLogger("oxonfair").setLevel(logging.ERROR)
    (data, group), (asked, their_group) = told
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = FairPredictor(
            lambda x: both(x[:, 0]),
            {"data": data, "target": label, "groups": group},
            **options,
        )
        metric = getattr(group_metrics, GAPS[case.task.metric])
        model.fit(group_metrics.accuracy, metric, target)
        # It asks for a target and does not read it: it gets none of theirs.
        nothing = np.zeros(len(asked), dtype=np.int64)
        found = model.predict({"data": asked, "groups": their_group, "target": nothing})
    return Answer(np.asarray(found).astype(np.int64), sealed)
