"""The power check: can this much sealed data certify what is promised?

Before anything is trained, the gate's own code judges hits that are drawn from
assumed laws (`laws`). A constitution is *certifiable* if a model that comes out of
training as well as its data allow passes with probability `REQUIRED`. If not, the
principles at fault are named with the least tolerance that would be certifiable
and with the rows that the promised one would need. The idea is ease.ml/ci's
(Renggli et al. 2019), extended from accuracy to constitutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from safescale_ammt.constitution.constitution import Constitution
from safescale_ammt.constitution.principles import FLAGS, MAJORITY
from safescale_ammt.constitution.promise_warnings import NOTHING
from safescale_ammt.data.counts import Counts
from safescale_ammt.data.schema import ENTITIES, ROWS
from safescale_ammt.errors import Uncertifiable
from safescale_ammt.judging.certify import BoolArray
from safescale_ammt.judging.power.cases import Case, Goal, least_line, rows_needed
from safescale_ammt.judging.power.laws import ASSUMPTIONS, SCALES, SIBLINGS
from safescale_ammt.judging.power.report import (
    REQUIRED,
    Odds,
    PowerReport,
    PrinciplePower,
    fault,
    summary,
)
from safescale_ammt.judging.power.sizes import principle_sizes

# The standard error of a P(pass) near .8 is then .009.
DRAWS = 2_000


def power_check(
    constitution: Constitution,
    counts: Counts,
    *,
    shares: Sequence[float] = (),
    draws: int = DRAWS,
    seed: int = 0,
    lines: bool = False,
    unit: str = ROWS,
) -> PowerReport:
    """Estimates, from counts alone, whether the promises can be certified.

    Args:
        constitution: the promises; hard and inviolable ones are checked.
        counts: rows by group and class of every split.
        shares: of the classes in development; () = what the counts tell.
        draws: draws per law.
        seed: seed of the draws.
        lines: whether to find the least certifiable line of every principle, not
            only of those at fault.
        unit: what the sealed rows are independent draws of, for the report.

    Raises:
        InputError: the counts lack a split or a group that the promises need.
    """
    alpha, group_rule = constitution.gate.alpha_k, constitution.groups
    # Whether checks of an attack are raised is no matter of rows.
    hard = [p for p in constitution.hard if p.constraint.metric != FLAGS]
    # All sizes first: counts that lack a group are refused before anything is drawn.
    sizes = [principle_sizes(p.constraint, counts, group_rule, shares) for p in hard]
    cases = [
        Case(principle, size, i, draws, seed)
        for i, (principle, size) in enumerate(zip(hard, sizes, strict=True))
    ]
    # Without a hard principle nothing is open or fails: `all` of no row is true.
    passes = np.ones((len(cases), len(SCALES) + 1, draws), dtype=bool)
    fails = ~passes
    # Where nothing is promised, the gate leaves every model to a person.
    something = sum(not case.constraint.promises_nothing for case in cases)
    for i, case in enumerate(cases):
        passes[i], fails[i] = case.decisions(alpha, something)
    every = np.asarray(passes.all(axis=0) & bool(something))
    joint = _odds(every, np.asarray(fails.any(axis=0)), None)
    powers = [
        _power(case, _odds(passes[i], fails[i], case)) for i, case in enumerate(cases)
    ]
    certifiable = not something or joint[-1].passes >= REQUIRED
    share = REQUIRED ** (1 / max(something, 1))
    # Remedies take bisections with many tests each, so only where they are needed.
    if not certifiable:
        powers = _with_remedies(powers, cases, share, alpha)
    if lines:
        # At most its own probability: a promise that is certifiable although it has
        # less than its share is not looser than the line that it needs.
        for i, (p, case) in enumerate(zip(powers, cases, strict=True)):
            if not p.culprit and not p.too_small and not p.searched:
                goal = Goal(min(share, p.spread.passes), alpha)
                powers[i] = replace(p, least=least_line(case, goal))
    faults = [
        fault(p, group_rule.min_n, group_rule.min_pos, share)
        for p in powers
        if p.culprit
    ]
    return PowerReport(
        certifiable=certifiable,
        table=joint[:-1],
        spread=joint[-1],
        principles=tuple(powers),
        culprits=tuple(p.principle for p in powers if p.culprit),
        sentence=summary(constitution.gate, joint[-1], faults)
        if something
        else NOTHING,
        alpha=alpha,
        draws=draws,
        seed=seed,
        sealed=counts.split("sealed").rows,
        unit=unit,
        assumptions=ASSUMPTIONS + (SIBLINGS,) * (unit == ENTITIES),
    )


def refuse_uncertifiable(constitution: Constitution, report: PowerReport) -> None:
    """Refuses promises that the data cannot certify, unless the file says `human`.

    Raises:
        Uncertifiable: with the least certifiable line and the rows needed.
    """
    if not report.certifiable and constitution.gate.on_uncertifiable != "human":
        raise Uncertifiable(report.sentence)


def _odds(passes: BoolArray, fails: BoolArray, case: Case | None) -> tuple[Odds, ...]:
    """Shares of decisions by law; passes and fails are (laws, draws)."""
    return tuple(
        Odds(
            scale,
            None if case is None or scale is None else scale * case.tolerance,
            float(passes[i].mean()),
            float((~passes[i] & ~fails[i]).mean()),
            float(fails[i].mean()),
        )
        for i, scale in enumerate((*SCALES, None))
    )


def _power(case: Case, odds: tuple[Odds, ...]) -> PrinciplePower:
    c = case.constraint
    return PrinciplePower(
        principle=case.principle.id,
        metric=c.metric,
        group=c.group,
        op=c.op,
        line=c.line,
        table=odds[:-1],
        spread=odds[-1],
        too_small=case.sizes.too_small,
        hidden=case.sizes.hidden,
        beside=case.sizes.beside if case.sizes.hidden else (),
        reference=c.reference if c.reference == MAJORITY else None,
        given=c.given,
        attack=c.attack,
        searched=not c.provable,
    )


def _with_remedies(
    powers: list[PrinciplePower], cases: list[Case], share: float, alpha: float
) -> list[PrinciplePower]:
    """Marks the principles at fault and says what each would need.

    At fault is one that passes less often than an equal share of `REQUIRED`; together
    the culprits must make up for what the others lose.
    """
    # The worst is at fault even if it reaches its share: in a finite number of draws
    # the joint probability may be below the product.
    worst = min(p.spread.passes for p in powers)
    at_fault = [p.spread.passes < max(share, worst + 1e-9) for p in powers]
    others = math.prod(
        p.spread.passes for p, bad in zip(powers, at_fault, strict=True) if not bad
    )
    goal = Goal((REQUIRED / others) ** (1 / sum(at_fault)), alpha)
    marked = list(powers)
    for i, case in enumerate(cases):
        if at_fault[i]:
            marked[i] = replace(powers[i], culprit=True)
        # No line and no number of rows certifies a group that is not judged.
        if at_fault[i] and not powers[i].too_small and not powers[i].searched:
            least, rows = least_line(case, goal), rows_needed(case, goal)
            marked[i] = replace(marked[i], least=least, rows=rows)
    return marked
