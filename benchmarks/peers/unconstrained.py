"""The bases themselves, and the one-scalar correction of their scores (all blind).

The correction is the group-blind bias score of `fair_baselines`: Menon & Williamson
2018, one scalar on the base's scores. It knows TPR gaps of two groups, and aims at 0.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np

from benchmarks import fair_baselines
from benchmarks.peers.bases import CLOSED, Base, boosting_base
from benchmarks.peers.network import plain_net
from benchmarks.transfer_tasks import Answer, Case


def itself(case: Case, base: Base, aim: float) -> Answer:  # noqa: ARG001
    """Answers as the base does."""
    score = base.sealed(case)
    return Answer((score >= 0.5).astype(np.int64), score)


def trees(case: Case, base: Base, aim: float, **knobs: Any) -> Answer:
    """Answers as LightGBM does, with other settings if some are tried."""
    return itself(case, base, aim) if not knobs else fresh(case, knobs)


def fresh(case: Case, knobs: dict[str, Any]) -> Answer:
    """Answers as LightGBM with settings of its own."""
    score = boosting_base(case, **knobs).score(case.sealed.x)
    return Answer((score >= 0.5).astype(np.int64), score)


def floor(case: Case, base: Base, aim: float) -> Answer:  # noqa: ARG001
    """Answers as the peers' unconstrained training does: the net through torch."""
    assert base.division == CLOSED
    score = plain_net(case).score(case.sealed.x)
    return Answer((score >= 0.5).astype(np.int64), score)


def bias_score(case: Case, base: Base, aim: float) -> Answer:  # noqa: ARG001
    """Answers by the group-blind bias score, fitted on all development rows."""
    known, score = base.on(case, "all")
    sealed, asked = base.sealed(case), case.sealed
    rows = fair_baselines.Rows(known.x, known.y, known.group == 0, score)
    judged = fair_baselines.Rows(asked.x, asked.y, asked.group == 0, sealed)
    # The baseline joins three splits: here the first of them holds all rows.
    first, *others = fair_baselines.FITTED_ON
    none = fair_baselines.Rows(*(each[:0] for each in astuple(rows)))
    splits = {first: rows, **dict.fromkeys(others, none)}
    found = fair_baselines.bias_score(fair_baselines.Case(splits, judged))
    return Answer(found, sealed)
