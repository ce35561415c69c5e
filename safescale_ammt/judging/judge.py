"""Judging: from evidence to a finding for each principle.

`judge` counts what the evidence says, asks `certify` whether that keeps or breaks
the promise, and writes the finding with bounds that agree with the answer. Point
values agree with fairlearn (definitions: docs/mathematical_foundations.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.constitution.principles import Constraint, Principle
from safescale_ammt.errors import InputError
from safescale_ammt.judging.bounds import Bounds, bounds
from safescale_ammt.judging.calibration import (
    BINS,
    METHOD,
    binned_errors,
    error_bounds,
    p_exceeds,
)
from safescale_ammt.judging.certify import Counted, GroupHits, PairedHits, inside
from safescale_ammt.judging.evidence import Evidence
from safescale_ammt.judging.findings import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Finding,
    GroupRate,
    reason,
)
from safescale_ammt.judging.group_rates import (
    GroupTable,
    group_table,
    table_value,
)


def judge(
    principle: Principle,
    evidence: Evidence,
    groups_rule: GroupRule,
    alpha: float,
    bins: int = BINS,
) -> Finding:
    """Judges one principle on sealed rows.

    Args:
        principle: the promise.
        evidence: predictions of the model (and its twin) on the sealed rows.
        groups_rule: least rows and positives of a group that is judged.
        alpha: one-sided error level of this submission.
        bins: equal-mass bins of `calibration_error`.

    Raises:
        InputError: the evidence lacks the principle's group, or the twin.
    """
    c = principle.constraint
    if c.metric == "calibration_error":
        return _calibration(principle, evidence, groups_rule, alpha, bins)
    if c.metric == "accuracy":
        pair = paired_hits(evidence, twin=c.reference is not None)
        measured = _Measured(_utility_value(c, pair), _model_rates(pair, c, alpha))
        return _tested(principle, pair, measured, alpha)
    table = group_table(c.metric, evidence, c.group or "")
    small = table.too_small(groups_rule.min_n, groups_rule.min_pos)
    names = tuple(v for v, s in zip(table.values, small, strict=True) if s)
    rates = _group_rates(table, small, alpha)
    measured = _Measured(table_value(c.metric, table), rates, names)
    return _tested(principle, GroupHits(table.rates, small), measured, alpha)


@dataclass(frozen=True)
class _Measured:
    """The part of a finding that needs no test."""

    value: float
    by_group: tuple[GroupRate, ...]
    too_small: tuple[str, ...] = ()


def paired_hits(evidence: Evidence, *, twin: bool) -> PairedHits:
    """Counts right answers of the model, and rows where only one of two is right.

    Raises:
        InputError: the twin is asked for, but the evidence has no predictions of it.
    """
    ours = evidence.prediction == evidence.label
    theirs = ours
    if twin:
        if evidence.twin_prediction is None:
            raise InputError(
                "The evidence holds no predictions of the unconstrained twin, but the "
                "constitution compares accuracy with it."
            )
        theirs = evidence.twin_prediction == evidence.label
    return PairedHits(
        np.asarray(ours.sum()),
        np.asarray((ours & ~theirs).sum()),
        np.asarray((theirs & ~ours).sum()),
        len(ours),
    )


def _tested(
    principle: Principle, counted: Counted, measured: _Measured, alpha: float
) -> Finding:
    """Asks whether the hits keep or break the promise, and bounds them."""
    c = principle.constraint
    found = bounds(c, counted, alpha)
    outcome = UNDECIDED
    if bool(inside(c, counted, alpha)):
        outcome = HOLDS
    elif found.p_violated <= alpha:
        outcome = FAILS
    found = _agreeing(c, found, outcome, open_=bool(measured.too_small))
    return _written(principle, found, outcome, measured, alpha)


def _written(
    principle: Principle,
    found: Bounds,
    outcome: str,
    measured: _Measured,
    alpha: float,
) -> Finding:
    c = principle.constraint
    finding = Finding(
        principle=principle.id,
        metric=c.metric,
        group=c.group,
        tier=c.tier,
        op=c.op,
        threshold=_line(c),
        value=measured.value,
        lower=found.lower,
        upper=found.upper,
        alpha=alpha,
        outcome=outcome,
        p_violated=found.p_violated,
        method=found.method,
        reason="",
        reference=c.reference,
        floor=c.floor,
        too_small=measured.too_small,
        by_group=measured.by_group,
    )
    return replace(finding, reason=reason(finding))


def _agreeing(c: Constraint, found: Bounds, outcome: str, *, open_: bool) -> Bounds:
    """Moves bounds that were rounded across the line back to the test's side.

    Bounds are inverted numerically, outcomes tested on the line itself; the two
    may differ by a rounding step, and a reader must never see them disagree.
    Groups that are too small, or a floor beside the twin's line, leave a principle
    open although its bounds are inside; these bounds then stay as they are.
    """
    open_ = open_ or c.floor is not None
    if c.op == ">=":
        line, toward = -_line(c), -1.0
        promised, other = -found.lower, -found.upper
    else:
        line, toward = _line(c), 1.0
        promised, other = found.upper, found.lower
    above = math.nextafter(line, math.inf)
    if outcome == HOLDS:
        promised = min(promised, line)
    elif not open_:
        promised = max(promised, above)
    if outcome == FAILS and not open_:
        other = max(other, above)
    elif outcome != FAILS:
        other = min(other, line)
    ends = sorted((toward * promised, toward * other))
    return replace(found, lower=ends[0], upper=ends[1])


def _line(c: Constraint) -> float:
    """The line on the scale of the finding's value."""
    line = c.threshold if c.reference is None else c.delta
    return float(line or 0.0)


def _utility_value(c: Constraint, pair: PairedHits) -> float:
    """Accuracy; with a reference, the model's minus the twin's."""
    hits = pair.correct if c.reference is None else pair.only_model - pair.only_twin
    return float(hits) / pair.rows


def _model_rates(
    pair: PairedHits, c: Constraint, alpha: float
) -> tuple[GroupRate, ...]:
    """Accuracy of the model, and of its twin where it is the reference."""
    ours = int(pair.correct)
    theirs = ours - int(pair.only_model) + int(pair.only_twin)
    right = {"model": ours} if c.reference is None else {"model": ours, "twin": theirs}
    return tuple(
        GroupRate(name, "accuracy", pair.rows, 0, *_bounded(hits, pair.rows, alpha))
        for name, hits in right.items()
    )


def _group_rates(
    table: GroupTable, small: NDArray[np.bool_], alpha: float
) -> tuple[GroupRate, ...]:
    """Every rate of every group with its own exact bounds."""
    return tuple(
        GroupRate(
            value,
            rates.of,
            int(table.rows[i]),
            int(table.positives[i]),
            *_bounded(int(rates.hits[i]), int(rates.trials[i]), alpha),
            judged=not small[i],
        )
        for rates in table.rates
        for i, value in enumerate(table.values)
    )


def _bounded(
    hits: int, trials: int, alpha: float
) -> tuple[int, int, float | None, float, float]:
    """Returns hits, trials, rate and the rate's exact one-sided bounds."""
    if trials == 0:
        return hits, trials, None, 0.0, 1.0
    return hits, trials, hits / trials, *clopper_pearson(hits, trials, alpha)


def _calibration(
    principle: Principle,
    evidence: Evidence,
    groups_rule: GroupRule,
    alpha: float,
    bins: int,
) -> Finding:
    """Judges calibration, the worst group's if grouped; soft by constitution."""
    c = principle.constraint
    errors = binned_errors(evidence, c.group, bins)
    large = {
        value: error
        for value, error in errors.items()
        if c.group is None or error[1] >= groups_rule.min_n
    }
    level = alpha / max(1, len(large))
    uppers = [error_bounds(e, n, alpha, bins)[1] for e, n in errors.values()]
    lowers = [error_bounds(e, n, level, bins)[0] for e, n in large.values()]
    p = [p_exceeds(e, n, _line(c), bins) for e, n in large.values()]
    adjusted = min(1.0, min(p, default=1.0) * max(1, len(p)))
    found = Bounds(max(lowers, default=0.0), max(uppers), adjusted, METHOD)
    small = tuple(value for value in errors if value not in large)
    outcome = UNDECIDED
    if found.upper <= _line(c) and not small:
        outcome = HOLDS
    elif adjusted <= alpha:
        outcome = FAILS
    value = max(error for error, _ in errors.values())
    found = _agreeing(c, found, outcome, open_=bool(small))
    return _written(principle, found, outcome, _Measured(value, (), small), alpha)
