"""Judging: from evidence to a finding for each principle.

`judge` counts what the evidence shows, lets `certify` test whether that keeps or
breaks the promise, and writes the finding with bounds that agree with the test. Point
values agree with fairlearn (definitions: docs/mathematical_foundations.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from safescale_ammt.binomial.intervals import clopper_pearson
from safescale_ammt.binomial.paired import gain_p_above, tango_statistic
from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.constitution.principles import (
    ATTACKED,
    FLAGS,
    MAJORITY,
    Constraint,
    Principle,
)
from safescale_ammt.errors import InputError
from safescale_ammt.judging.attack_words import COUNTED, told
from safescale_ammt.judging.bounds import Bounds, bounds
from safescale_ammt.judging.calibration import (
    BINS,
    METHOD,
    binned_errors,
    calibration_error,
    error_bounds,
    p_exceeds,
)
from safescale_ammt.judging.certify import GroupHits, Hits, PairedHits, inside
from safescale_ammt.judging.evidence import Evidence, IntArray
from safescale_ammt.judging.findings import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Finding,
    GroupRate,
    reason,
)
from safescale_ammt.judging.group_rates import GroupTable, group_tables, table_value
from safescale_ammt.judging.robust import raised_checks, robust_table, survivors
from safescale_ammt.judging.skill import RATES, area, balance, rate_hits


def judge(
    principle: Principle,
    evidence: Evidence,
    group_rule: GroupRule,
    alpha: float,
    bins: int = BINS,
) -> Finding:
    """Judges one principle on sealed rows.

    Args:
        principle: the promise.
        evidence: predictions of the model (and its twin) on the sealed rows.
        group_rule: least rows and positives of a group that is judged.
        alpha: one-sided error level of this submission.
        bins: equal-mass bins of `calibration_error`.

    Raises:
        InputError: the evidence lacks the principle's group, or the twin.
    """
    c = principle.constraint
    if c.metric == FLAGS:
        return judge_checks(principle, evidence, alpha)
    if c.empirical and evidence.batteries and raised_checks(evidence, c):
        # Nothing is known of an attack whose checks are raised, so nothing is shown.
        c = replace(c, doubted=True)
        principle = replace(principle, constraint=c)
    if c.metric == "calibration_error":
        return _judge_calibration(principle, evidence, group_rule, alpha, bins)
    if c.metric in ("accuracy", *RATES) or (c.metric in ATTACKED and c.group is None):
        return _judge_rate(principle, evidence, alpha)
    if c.metric in ("auc", "balanced_accuracy"):
        skill = area(evidence) if c.metric == "auc" else balance(evidence)
        value = float(skill.value) if skill.has_value else None
        return _test(principle, skill, _Estimate(value, ()), alpha)
    attacked = c.metric in ATTACKED
    tables: tuple[GroupTable, ...] = (
        (robust_table(evidence, c),)
        if attacked
        else group_tables(c.metric, evidence, c.group or "", c.given)
    )
    sizes = group_rule.min_n, group_rule.min_pos
    small = [table.too_small(*sizes) for table in tables]
    by_group = tuple(
        GroupRate(
            value,
            rates.of,
            int(table.rows[i]),
            int(table.positives[i]),
            *_rate_bounds(int(rates.hits[i]), int(rates.trials[i]), alpha),
            judged=not few[i],
            stratum=table.stratum,
        )
        for table, few in zip(tables, small, strict=True)
        for rates in table.rates
        for i, value in enumerate(table.values)
    )
    # A group that is too small in one stratum leaves the promise open.
    names = dict.fromkeys(rate.name for rate in by_group if not rate.judged)
    estimate = _Estimate(table_value(c.metric, tables), by_group, tuple(names))
    hits = tuple(
        replace(rates, small=few)
        if c.given
        # Tested as errors are: the rows that did not survive.
        else replace(rates, hits=rates.trials - rates.hits)
        if attacked
        else rates
        for table, few in zip(tables, small, strict=True)
        for rates in table.rates
    )
    few_anywhere = np.any(small, axis=0)
    found = _test(principle, GroupHits(hits, few_anywhere), estimate, alpha)
    return with_attack(found, c, evidence)


def judge_checks(principle: Principle, evidence: Evidence, alpha: float) -> Finding:
    """Counts the checks of a battery that are raised: a fact, and no estimate."""
    names = raised_checks(evidence, principle.constraint)
    count = float(len(names))
    outcome = HOLDS if count <= principle.constraint.line else FAILS
    limits = Bounds(count, count, float(not count), COUNTED)
    found = _finding(principle, limits, outcome, _Estimate(count, ()), alpha)
    which = f": {', '.join(names)}" if names else ""
    reason = (
        f"{len(names)} of the attack's own checks are raised under {found.attack}"
        f"{which}; {found.op} {found.threshold:g} is promised."
    )
    return replace(found, reason=reason)


def with_attack(found: Finding, c: Constraint, evidence: Evidence) -> Finding:
    """Returns a finding whose sentence says what its attack does not show."""
    words = told(found, len(evidence.label))
    if c.image_threat and (own := evidence.batteries.get(c.image_threat.key)):
        words += own.doubts
    return replace(found, reason=found.reason + words)


@dataclass(frozen=True)
class _Estimate:
    """The part of a finding that needs no test; the value None if not defined."""

    value: float | None
    by_group: tuple[GroupRate, ...]
    too_small: tuple[str, ...] = ()


def _judge_rate(principle: Principle, evidence: Evidence, alpha: float) -> Finding:
    """Judges accuracy (with a reference the model's minus its), precision, recall."""
    c = principle.constraint
    pair = paired_hits(evidence, c)
    right = {"model": int(pair.correct)}
    difference = pair.correct
    if c.reference is not None:
        name = "constant" if c.reference == MAJORITY else "twin"
        right[name] = right["model"] - int(pair.only_model) + int(pair.only_reference)
        difference = pair.only_model - pair.only_reference
    rates = tuple(
        GroupRate(name, c.metric, pair.rows, 0, *_rate_bounds(x, pair.rows, alpha))
        for name, x in right.items()
    )
    # A rate without trials is not defined, as with the rates of groups.
    estimate = _Estimate(float(difference) / pair.rows if pair.rows else None, rates)
    found = _test(principle, pair, estimate, alpha)
    return with_attack(found, c, evidence)


def reference_answers(evidence: Evidence, c: Constraint) -> Sequence[IntArray]:
    """Returns what the references answer (n,): without one, what the model does.

    All constants: which of them is best among all people is not known, so that a
    model must beat each.

    Raises:
        InputError: the twin is needed, but the evidence has no predictions of it.
    """
    if c.reference is None:
        return [evidence.prediction]
    if c.reference == MAJORITY:
        return [np.full_like(evidence.label, k) for k in range(evidence.classes)]
    if evidence.twin_prediction is None:
        raise InputError(
            "The evidence holds no predictions of the unconstrained twin, but the "
            "constitution compares accuracy with it."
        )
    return [evidence.twin_prediction]


def paired_hits(evidence: Evidence, c: Constraint) -> PairedHits:
    """Counts right answers of the model, and rows where only one of two is right.

    Of several references it is the one that the model beats least clearly.

    Raises:
        InputError: the twin is needed, but the evidence has no predictions of it.
    """
    if c.metric in RATES or c.judged_threat is not None:
        attacked = c.judged_threat is not None
        hits, trials = (
            survivors(evidence, c) if attacked else rate_hits(c.metric, evidence)
        )
        return PairedHits(np.asarray(hits), *(np.asarray(0),) * 2, trials)
    label, model_right = evidence.label, evidence.prediction == evidence.label
    answers = reference_answers(evidence, c)
    pairs = [
        PairedHits(
            np.asarray(model_right.sum()),
            np.asarray((model_right & (answer != label)).sum()),
            np.asarray(((answer == label) & ~model_right).sum()),
            len(label),
            len(answers),
        )
        for answer in answers
    ]
    if len(pairs) == 1:
        return pairs[0]

    # By the test itself: a promise that is shown against it is shown against all.
    def doubt(p: PairedHits) -> tuple[float, float]:
        table = int(p.only_model), int(p.only_reference), p.rows, c.delta or 0.0
        return gain_p_above(*table, refine_below=1.0), -float(tango_statistic(*table))

    return max(pairs, key=doubt)


def _rate_bounds(
    hits: int, trials: int, alpha: float
) -> tuple[int, int, float | None, float | None, float | None]:
    """Returns hits, trials, rate and the rate's exact one-sided bounds."""
    if trials == 0:
        return hits, trials, None, None, None
    return hits, trials, hits / trials, *clopper_pearson(hits, trials, alpha)


def _test(
    principle: Principle, hits: Hits, estimate: _Estimate, alpha: float
) -> Finding:
    """Tests whether the hits keep or break the promise, and bounds them."""
    c = principle.constraint
    limits = bounds(c, hits, alpha)
    outcome = UNDECIDED
    # What is not defined is shown by nothing, not even where nothing is promised.
    if estimate.value is not None and (
        c.promises_nothing or bool(inside(c, hits, alpha))
    ):
        outcome = HOLDS
    # Adjusted within the principle already; over principles the gate adjusts.
    elif limits.p_violated <= alpha:
        outcome = FAILS
    limits = _agree(c, limits, outcome, open_=bool(estimate.too_small))
    return _finding(principle, limits, outcome, estimate, alpha)


def _judge_calibration(
    principle: Principle,
    evidence: Evidence,
    group_rule: GroupRule,
    alpha: float,
    bins: int,
) -> Finding:
    """Judges calibration, the worst group's if grouped; soft by constitution."""
    c = principle.constraint
    errors = binned_errors(evidence, c.group, bins)
    # Positives play no part in calibration, so that only `min_n` decides.
    least = 0 if c.group is None else group_rule.min_n
    small = tuple(value for value, (_, n) in errors.items() if n < least)
    known = {v: (e, n) for v, (e, n) in errors.items() if e is not None}
    large = [entry for value, entry in known.items() if value not in small]
    level = alpha / max(1, len(large))
    uppers = [error_bounds(e, n, alpha, bins)[1] for e, n in known.values()]
    lowers = [error_bounds(e, n, level, bins)[0] for e, n in large]
    p = [p_exceeds(e, n, c.line, bins) for e, n in large]
    adjusted = min(1.0, min(p, default=1.0) * max(1, len(p)))
    limits = Bounds(
        max(lowers, default=0.0), max(uppers, default=1.0), adjusted, METHOD
    )
    value = calibration_error(evidence, c.group, bins)
    holds = c.promises_nothing or (limits.upper <= c.line and not small)
    outcome = UNDECIDED
    if value is not None and holds:
        outcome = HOLDS
    elif adjusted <= alpha:
        outcome = FAILS
    estimate = _Estimate(value, (), small)
    limits = _agree(c, limits, outcome, open_=bool(small))
    return _finding(principle, limits, outcome, estimate, alpha)


def _agree(c: Constraint, limits: Bounds, outcome: str, *, open_: bool) -> Bounds:
    """Moves bounds that were rounded across the line back to the test's side.

    Bounds are inverted numerically, outcomes tested on the line itself; the two
    may differ by a rounding step, and a reader must never see them disagree.
    """
    # Groups that are too small, or a floor beside the twin's line, leave a principle
    # open although its bounds are inside; these bounds then stay as they are.
    open_ = open_ or c.floor is not None
    # A promise of "at least" is the same as "at most" with all signs changed.
    if c.op == ">=":
        line, sign = -c.line, -1.0
        promised, other = -limits.lower, -limits.upper
    else:
        line, sign = c.line, 1.0
        promised, other = limits.upper, limits.lower
    # Strictly above: a bound on the line itself would read as inside.
    above = math.nextafter(line, math.inf)
    if outcome == HOLDS:
        promised = min(promised, line)
    elif not open_:
        promised = max(promised, above)
    if outcome == FAILS and not open_:
        other = max(other, above)
    elif outcome != FAILS:
        other = min(other, line)
    # With the signs changed back, lower and upper have changed places.
    ends = sorted((sign * promised, sign * other))
    return replace(limits, lower=ends[0], upper=ends[1])


def _finding(
    principle: Principle,
    limits: Bounds,
    outcome: str,
    estimate: _Estimate,
    alpha: float,
) -> Finding:
    c = principle.constraint
    lower, upper, method = limits.told(c, estimate.value, outcome)
    finding = Finding(
        principle=principle.id,
        metric=c.metric,
        group=c.group,
        tier=c.tier,
        op=c.op,
        threshold=c.line,
        value=estimate.value,
        lower=lower,
        upper=upper,
        alpha=alpha,
        outcome=outcome,
        p_violated=1.0 if c.promises_nothing else limits.p_violated,
        method=method,
        reason="",
        reference=c.reference,
        floor=c.floor,
        too_small=estimate.too_small,
        by_group=estimate.by_group,
        given=c.given,
        attack=c.attack,
    )
    # The sentence is made of the finding's own figures and cannot depart from them.
    return replace(finding, reason=reason(finding))
