"""What others would do with the same rows: the baselines of `constraint-first`.

Frozen: these are the yardsticks, and they are not tuned to win or to lose. Each
takes the splits of one seed and answers the sealed rows; none reads a sealed label.
The two post-processors start from our own unconstrained twin's scores.

- `group-blind bias score` (Menon & Williamson 2018): predict 1 if
  2 eta - 1 + lam eta (q / P(F,1) - (1-q) / P(M,1)) > 0, q = logistic P(F | x, y=1),
  one scalar lam by bisection on train + constraint + select.
- `ThresholdOptimizer` (fairlearn; Hardt et al. 2016): thresholds per sex, fitted on
  the same rows; it needs the sex of everyone it answers.
- `LightGBM`, unconstrained, on train + constraint.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from fairlearn.postprocessing import ThresholdOptimizer
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from safescale_ammt.data.coding import encode
from safescale_ammt.data.dataset import Dataset, Split
from safescale_ammt.data.holdout import Holdout
from safescale_ammt.model.predictor import Predictor
from safescale_ammt.store.base import Store
from safescale_ammt.store.protected import made_whole
from safescale_ammt.store.uri import open_store

Ints = NDArray[np.int64]
Floats = NDArray[Any]
FITTED_ON = ("train", "constraint", "select")


@dataclass(frozen=True)
class Rows:
    """Rows as a baseline sees them: inputs, labels, sex, the twin's scores."""

    x: Floats
    y: Ints
    female: NDArray[np.bool_]
    eta: Floats


def store_beside(artifact: Path) -> Store:
    """Opens the store in which the rows of an artifact lie, the folder beside it."""
    return open_store((artifact.parent / "store").as_uri())


@dataclass(frozen=True)
class Case:
    """The rows of one seed: those to fit on by split, and those to answer."""

    splits: dict[str, Rows]
    sealed: Rows

    @classmethod
    def load(cls, dataset: Path, holdout: Path, model: Path) -> Case:
        """Reads the artifacts and lets the twin score every row."""
        data = Dataset.load(dataset)
        with made_whole(store_beside(holdout), holdout, "holdout") as rows_too:
            sealed = Holdout.load(rows_too).split
        twin = Predictor.load(model / "twin")
        names = data.schema.groups["sex"]

        def rows(split: Split) -> Rows:
            female = split.groups["sex"] == names.index("Female")
            x = encode(data.schema, split.features, "ple")
            eta = twin.predict_table(split.features).score
            return Rows(x, split.label, female, eta)

        fitted = {name: rows(split) for name, split in data.splits.items()}
        return cls(fitted, rows(sealed))

    def joined(self, names: tuple[str, ...]) -> Rows:
        """Returns the rows of several splits."""
        parts = [self.splits[name] for name in names]
        return Rows(
            *(
                np.concatenate([getattr(p, f) for p in parts])
                for f in ("x", "y", "female", "eta")
            )
        )


def tpr_gap(prediction: NDArray[Any], rows: Rows) -> float:
    """Returns the TPR of men minus that of women."""
    hit = (prediction == 1) & (rows.y == 1)
    rates = [hit[g].sum() / (rows.y[g] == 1).sum() for g in (rows.female, ~rows.female)]
    return float(rates[1] - rates[0])


def twin_itself(case: Case) -> Ints:
    """Answers as the unconstrained twin does."""
    return (case.sealed.eta >= 0.5).astype(np.int64)


def bias_score(case: Case) -> Ints:
    """Answers by the group-blind bias score."""
    rows = case.joined(FITTED_ON)
    positive = rows.y == 1
    model = LogisticRegression(max_iter=1000)
    model.fit(rows.x[positive], rows.female[positive])
    share = [(rows.female & positive).mean(), (~rows.female & positive).mean()]

    def answer(lam: float, on: Rows) -> Ints:
        q = model.predict_proba(on.x)[:, 1]
        pull = q / share[0] - (1 - q) / share[1]
        chosen: NDArray[np.bool_] = 2 * on.eta - 1 + lam * on.eta * pull > 0
        return chosen.astype(np.int64)

    # 30 halvings of .1 leave 1e-10, far below the steps in which a rate can change.
    low, high = -0.05, 0.05
    for _ in range(30):
        middle = (low + high) / 2
        if tpr_gap(answer(middle, rows), rows) > 0:
            low = middle
        else:
            high = middle
    return answer((low + high) / 2, case.sealed)


class _Scores(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """An estimator that was fitted elsewhere: its input is its score."""

    def fit(self, x: Any, y: Any) -> _Scores:
        self.classes_ = np.unique(y)
        self.fitted_ = len(x)
        return self

    def predict_proba(self, x: Any) -> Floats:
        score = np.asarray(x)[:, 0]
        return np.stack([1 - score, score], 1)


def threshold_optimizer(case: Case) -> Ints:
    """Answers by fairlearn's thresholds per sex."""
    rows, sealed = case.joined(FITTED_ON), case.sealed
    frame = pd.DataFrame({"eta": rows.eta})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = ThresholdOptimizer(
            estimator=_Scores().fit(frame, rows.y),
            constraints="true_positive_rate_parity",
            objective="accuracy_score",
            prefit=True,
            predict_method="predict_proba",
        )
        model.fit(frame, rows.y, sensitive_features=rows.female)
        # Its answers are drawn between two thresholds: seeded, so that runs agree.
        prediction = model.predict(
            pd.DataFrame({"eta": sealed.eta}),
            sensitive_features=sealed.female,
            random_state=0,
        )
    return np.asarray(prediction, dtype=np.int64)


def boosting(case: Case) -> Ints:
    """Answers by unconstrained gradient boosting."""
    rows = case.joined(("train", "constraint"))
    model = lightgbm.LGBMClassifier(
        n_estimators=200,
        learning_rate=0.05,
        # One thread for everybody's clock; the other two are what LightGBM asks for
        # where the same rows have to give the same trees.
        num_threads=1,
        deterministic=True,
        force_row_wise=True,
        verbose=-1,
    )
    model.fit(rows.x, rows.y)
    score = model.booster_.predict(case.sealed.x)
    return (np.asarray(score) >= 0.5).astype(np.int64)


BASELINES: dict[str, Callable[[Case], Ints]] = {
    "twin, unconstrained": twin_itself,
    "group-blind bias score on the twin": bias_score,
    "ThresholdOptimizer on the twin (uses sex)": threshold_optimizer,
    "LightGBM, unconstrained": boosting,
}


def answers(case: Case) -> dict[str, tuple[Ints, float]]:
    """Returns every baseline's answers and CPU seconds beyond the twin's."""
    timed = {}
    for name, method in BASELINES.items():
        start = time.process_time()
        answer = method(case)
        timed[name] = answer, time.process_time() - start
    return timed
