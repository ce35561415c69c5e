"""The power check: can this much sealed data certify what is promised?

Before anything is trained, the gate's own code judges hits that are drawn from
assumed laws (`power_laws`). A constitution is *certifiable* if a model that comes
out of training as well as its data allow passes with probability `REQUIRED`. If
not, the principles at fault are named with the least tolerance that would be
certifiable and with the rows that the promised one would need. The idea is
ease.ml/ci's (Renggli et al. 2019), extended from accuracy to constitutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from safescale_ammt.certify import BoolArray
from safescale_ammt.constitution import Constitution
from safescale_ammt.counts import Counts
from safescale_ammt.errors import Uncertifiable
from safescale_ammt.power_cases import Case, least_line, rows_needed
from safescale_ammt.power_laws import SCALES, scene
from safescale_ammt.power_report import (
    REQUIRED,
    Odds,
    PowerReport,
    PrinciplePower,
    fault,
)

__all__ = ["PowerReport", "power_check", "refuse_uncertifiable"]
DRAWS = 2_000


def power_check(
    constitution: Constitution, counts: Counts, *, draws: int = DRAWS, seed: int = 0
) -> PowerReport:
    """Asks, from counts alone, whether the promises can be certified.

    Args:
        constitution: the promises; hard and inviolable ones are checked.
        counts: rows by group and class of every split.
        draws: draws per law.
        seed: seed of the draws.

    Raises:
        InputError: the counts lack a split or a group that the promises need.
    """
    alpha = constitution.gate.alpha_k
    cases = [
        _Case(p, scene(p.constraint, counts, constitution.groups), i, draws, seed)
        for i, p in enumerate(constitution.hard)
    ]
    tables = [case.decisions(alpha, len(cases)) for case in cases]
    kept = np.ones((len(SCALES) + 1, draws), dtype=bool)
    broken = ~kept
    for inner, outer in tables:
        kept, broken = kept & inner, broken | outer
    spread = _odds(kept, broken)[-1]
    found = [
        case.described(_odds(inner, outer, case))
        for case, (inner, outer) in zip(cases, tables, strict=True)
    ]
    certifiable = spread.passes >= REQUIRED
    culprits = [] if certifiable else _culprits(found)
    target = _target(found, culprits)
    found = [
        _with_remedy(f, case, alpha, target) if f.principle in culprits else f
        for f, case in zip(found, cases, strict=True)
    ]
    return PowerReport(
        certifiable=certifiable,
        table=_odds(kept, broken)[:-1],
        spread=spread,
        principles=tuple(found),
        culprits=tuple(culprits),
        sentence=_answer(spread.passes, found, culprits),
        alpha=alpha,
        draws=draws,
        seed=seed,
    )


def refuse_uncertifiable(constitution: Constitution, report: PowerReport) -> None:
    """Refuses promises that the data cannot certify, unless the file says `human`.

    Raises:
        Uncertifiable: with the least certifiable line and the rows needed.
    """
    if not report.certifiable and constitution.gate.on_uncertifiable != "human":
        raise Uncertifiable(report.sentence)


def _odds(
    kept: BoolArray, broken: BoolArray, case: _Case | None = None
) -> tuple[Odds, ...]:
    """Shares of decisions per law (laws, draws)."""
    return tuple(
        Odds(
            scale,
            None if case is None or scale is None else scale * _tolerance(case),
            float(kept[i].mean()),
            float((~kept[i] & ~broken[i]).mean()),
            float(broken[i].mean()),
        )
        for i, scale in enumerate((*SCALES, None))
    )


def _tolerance(case: _Case) -> float:
    """What the line leaves free: a gap, a loss of ratio, an error, a shortfall."""
    c = case.constraint
    if c.reference is not None:
        return -(c.delta or 0.0)
    line = c.threshold or 0.0
    return line if c.op == "<=" else 1 - line


