"""What a peer wraps: the base of a division, with one face for nets and trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.boosting import fitted, new_booster, scores_of
from benchmarks.peers.network import NetClassifier, trunk_of
from benchmarks.transfer_tasks import POOL, SPLITS, TREE_POOL, Case, Rows, seed_of

Scores = NDArray[Any]
CLOSED, OPEN = "closed", "open"


@dataclass(frozen=True)
class Base:
    """The base of a division, trained on its pool.

    Attributes:
        division: `closed` or `open`.
        pool: splits that it was trained on.
        score: chances (n,) of the positive class, of inputs (n, d).
        estimator: makes an unfitted one for scikit-learn.
        group_score: chances (n,) of group 1, by the same kind of model.
    """

    division: str
    pool: tuple[str, ...]
    score: Callable[[Scores], Scores]
    estimator: Callable[[], Any]
    group_score: Callable[[Scores], Scores]

    def on(self, case: Case, rows: str) -> tuple[Rows, Scores]:
        """Returns rows to fit a correction on, `all` or `untrained`, and scores."""
        untrained = [split for split in SPLITS if split not in self.pool]
        found = case.rows(*(SPLITS if rows == "all" else untrained))
        name = f"{self.division} scores of {rows}"
        return found, case.shared(name, lambda: self.score(found.x))

    def sealed(self, case: Case) -> Scores:
        """Returns the scores of the sealed rows."""
        return case.shared(
            f"{self.division} sealed scores", lambda: self.score(case.sealed.x)
        )


def base_of(case: Case, division: str) -> Base:
    """Trains the base of a division, once for a re-split."""
    makers = {CLOSED: network_base, OPEN: boosting_base}
    return case.shared(f"{division} base", lambda: makers[division](case))


def network_base(case: Case) -> Base:
    """Returns the unconstrained twin, trained as one net."""
    seed = seed_of(case.split)

    def group_score(x: Scores) -> Scores:
        rows = case.rows(*POOL)
        net = case.shared(
            "closed group net", lambda: NetClassifier(seed=seed).fit(rows.x, rows.group)
        )
        return np.asarray(net.predict_proba(x))[:, 1]

    own = trunk_of(case).score
    return Base(CLOSED, POOL, own, lambda: NetClassifier(seed=seed), group_score)


def boosting_base(case: Case, **knobs: Any) -> Base:
    """Returns LightGBM."""
    model = fitted(case, **knobs)

    def group_score(x: Scores) -> Scores:
        of_group = case.shared(
            "open group trees", lambda: fitted(case, label="group", **knobs)
        )
        return scores_of(of_group, x)

    def score(x: Scores) -> Scores:
        return scores_of(model, x)

    return Base(OPEN, TREE_POOL, score, lambda: new_booster(**knobs), group_score)
