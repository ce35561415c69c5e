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

from safescale_ammt.constitution.constitution import Constitution, GroupRule
from safescale_ammt.data.counts import Counts
from safescale_ammt.errors import Uncertifiable
from safescale_ammt.judging.certify import BoolArray
from safescale_ammt.judging.power.cases import Case, Goal, least_line, rows_needed
from safescale_ammt.judging.power.laws import SCALES, scene
from safescale_ammt.judging.power.report import (
    REQUIRED,
    Odds,
    PowerReport,
    PrinciplePower,
    fault,
)

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
    alpha, hard = constitution.gate.alpha_k, constitution.hard
    places = [scene(p.constraint, counts, constitution.groups) for p in hard]
    cases = [
        Case(p, place, i, draws, seed)
        for i, (p, place) in enumerate(zip(hard, places, strict=True))
    ]
    kept = np.ones((len(cases) + 1, len(SCALES) + 1, draws), dtype=bool)
    broken = ~kept
    for i, case in enumerate(cases):
        kept[i], broken[i] = case.decisions(alpha, len(cases))
    joint = _odds(np.asarray(kept.all(axis=0)), np.asarray(broken.any(axis=0)), None)
    found = [
        _described(case, _odds(kept[i], broken[i], case))
        for i, case in enumerate(cases)
    ]
    certifiable = joint[-1].passes >= REQUIRED
    if not certifiable:
        found = _with_remedies(found, cases, alpha)
    return PowerReport(
        certifiable=certifiable,
        table=joint[:-1],
        spread=joint[-1],
        principles=tuple(found),
        culprits=tuple(f.principle for f in found if f.culprit),
        sentence=_answer(joint[-1], found, constitution.groups),
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


def _odds(kept: BoolArray, broken: BoolArray, case: Case | None) -> tuple[Odds, ...]:
    """Shares of decisions by law; kept and broken are (laws, draws)."""
    return tuple(
        Odds(
            scale,
            None if case is None or scale is None else scale * case.tolerance,
            float(kept[i].mean()),
            float((~kept[i] & ~broken[i]).mean()),
            float(broken[i].mean()),
        )
        for i, scale in enumerate((*SCALES, None))
    )


def _described(case: Case, odds: tuple[Odds, ...]) -> PrinciplePower:
    c = case.constraint
    small = zip(case.place.values, case.place.small, strict=True)
    return PrinciplePower(
        principle=case.principle.id,
        metric=c.metric,
        group=c.group,
        op=c.op,
        line=float((c.threshold if c.reference is None else c.delta) or 0.0),
        table=odds[:-1],
        spread=odds[-1],
        too_small=tuple(value for value, is_small in small if is_small),
    )


def _with_remedies(
    found: list[PrinciplePower], cases: list[Case], alpha: float
) -> list[PrinciplePower]:
    """Marks the principles at fault and says what each would need.

    At fault is whoever passes less often than an equal share of `REQUIRED` asks
    for; together the culprits must make up for what the others lose.
    """
    share = REQUIRED ** (1 / len(found))
    worst = min(f.spread.passes for f in found)
    at_fault = [f.spread.passes < max(share, worst + 1e-9) for f in found]
    others = math.prod(
        f.spread.passes for f, bad in zip(found, at_fault, strict=True) if not bad
    )
    target = (REQUIRED / others) ** (1 / sum(at_fault))
    return [
        _with_remedy(f, case, Goal(target, alpha)) if bad else f
        for f, case, bad in zip(found, cases, at_fault, strict=True)
    ]


def _with_remedy(found: PrinciplePower, case: Case, goal: Goal) -> PrinciplePower:
    if found.too_small:
        return replace(found, culprit=True)
    return replace(
        found,
        culprit=True,
        least=least_line(case, goal),
        rows=rows_needed(case, goal),
    )


def _answer(spread: Odds, found: Sequence[PrinciplePower], rule: GroupRule) -> str:
    head = (
        f"A model as training will leave it passes with probability {spread.passes:.2f}"
    )
    faults = [fault(f, rule.min_n, rule.min_pos) for f in found if f.culprit]
    if not faults:
        return f"{head}, {REQUIRED:g} is required: the constitution is certifiable."
    return f"{head}, {REQUIRED:g} is required: {'; '.join(faults)}."
