"""The base of the OPEN division: LightGBM on the same rows and inputs.

LightGBM recommends few settings for a table of this size: more trees at a lower rate,
and leaves that are not smaller than noise. Tried: (trees, rate, leaves) of (200, .05,
31), (400, .03, 31), (300, .05, 15) and (600, .03, 15).
"""

from __future__ import annotations

import warnings
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from benchmarks.transfer_tasks import TREE_POOL, Case

Scores = NDArray[Any]
CHOSEN = {"n_estimators": 200, "learning_rate": 0.05, "num_leaves": 31}


def new_booster(**knobs: Any) -> lightgbm.LGBMClassifier:
    """Returns an unfitted classifier: one thread, the same trees every time."""
    return lightgbm.LGBMClassifier(
        **{**CHOSEN, **knobs},
        num_threads=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )


def scores_of(model: lightgbm.LGBMClassifier, x: Scores) -> Scores:
    """Returns the chance of the second class (n,)."""
    with warnings.catch_warnings():
        # Rows without names of columns, which the model made up.
        warnings.simplefilter("ignore")
        return np.asarray(model.predict_proba(x))[:, 1]


def fitted(case: Case, *, label: str = "y", **knobs: Any) -> lightgbm.LGBMClassifier:
    """Fits the pool's label, or its group."""
    rows = case.rows(*TREE_POOL)
    return new_booster(**knobs).fit(rows.x, getattr(rows, label))
