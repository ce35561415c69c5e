"""Do counted hits keep a promise, break it, or leave it open?

The judge gives these functions the hits that were counted, the power check gives
them arrays of simulated hits: one code decides both.

    inside(constraint, hits, alpha)    every one-sided 1 - alpha bound is inside
    outside(constraint, hits, level)   the violation's p-value is <= level

`inside` is an intersection-union test: a promise over many pairs of groups is kept
only if every pair's own level-alpha test says so, which needs no correction.
`outside` looks for one violated pair among m and divides its level by m.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.intervals import rate_p_above, rate_p_below
from safescale_ammt.binomial.paired import gain_p_above, shows_gain
from safescale_ammt.binomial.two_rates import shows_above, shows_below
from safescale_ammt.constitution.principles import ATTACKED, Constraint
from safescale_ammt.judging.evidence import IntArray
from safescale_ammt.judging.group_rates import Rates
from safescale_ammt.judging.skill import MeanHits, SkillHits, TwoClassHits

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupHits:
    """Rates of groups, hits (..., g), and which groups (g,) are too small.

    Within strata a group is small that is so in any; what it shows in the others
    counts.
    """

    rates: tuple[Rates, ...]
    small: BoolArray

    @property
    def large(self) -> GroupHits:
        """Only the groups that are large enough to be judged, in each stratum."""
        rates = tuple(
            r.of_groups(~(self.small if r.small is None else r.small))
            for r in self.rates
        )
        return GroupHits(rates, self.small[~self.small])


@dataclass(frozen=True)
class PairedHits:
    """Rows that a model (and its reference) gets right; counts are (...,) arrays.

    For precision and recall the rows are the trials of that rate.

    Attributes:
        correct: rows that the model gets right.
        only_model: rows that only the model gets right.
        only_reference: rows that only its reference gets right.
        rows: all rows.
        references: references of which this is the one that the model beats least.
    """

    correct: IntArray
    only_model: IntArray
    only_reference: IntArray
    rows: int
    references: int = 1


Hits = GroupHits | PairedHits | SkillHits


def inside(
    constraint: Constraint, hits: Hits, alpha: float, *, normal: bool = False
) -> BoolArray:
    """Tells which draws keep the promise at level alpha, shape (...,).

    A group that is too small, or the lack of a second group, leaves it open.
    `normal` replaces exact tests of two rates and two models by normal ones: a quick
    first guess for the power check, never for the gate.
    """
    if isinstance(hits, PairedHits):
        return shows_use(constraint, hits, alpha, normal=normal) & constraint.provable
    if isinstance(hits, TwoClassHits | MeanHits):
        return hits.shows_above(line_at(constraint), alpha, normal=normal)
    # A group that nobody can judge might be the one for which the promise is broken.
    holds = np.ones(hits.rates[0].hits.shape[:-1], dtype=bool)
    alone = compares(constraint) and len(hits.small) < 2
    if hits.small.any() or alone or not constraint.provable:
        return ~holds
    if not compares(constraint):
        for x, n in columns(hits):
            holds &= rate_p_below(x, n, line_at(constraint)) <= alpha
        return holds
    for x1, x0, line in pairs(hits, constraint):
        # Exact tests are dear: a draw that one pair left open is not tested again.
        holds[holds] = shows_below(x1[holds], x0[holds], line, alpha, normal=normal)
    return holds


def shows_use(
    constraint: Constraint, hits: PairedHits, alpha: float, *, normal: bool = False
) -> BoolArray:
    """Tells which draws show the reference's line and the floor, each at alpha.

    Both must show, so there is no correction; of several references the one that is
    beaten least decides.
    """
    holds = np.ones(np.shape(hits.correct), dtype=bool)
    if constraint.reference is not None:
        b, c, delta = hits.only_model, hits.only_reference, constraint.delta or 0.0
        holds &= shows_gain(b, c, hits.rows, delta, alpha, normal=normal)
    least = _least_accuracy(constraint)
    if least is not None:
        holds &= rate_p_above(hits.correct, hits.rows, least) <= alpha
    return holds


def outside(constraint: Constraint, hits: Hits, level: float) -> BoolArray:
    """Tells which draws break the promise: p-value of violation <= level."""
    if isinstance(hits, PairedHits):
        share = level / max(1, utility_lines(constraint, hits))
        fails = np.zeros(np.shape(hits.correct), dtype=bool)
        if constraint.reference is not None:
            b, c, delta = hits.only_model, hits.only_reference, constraint.delta or 0.0
            fails |= shows_gain(c, b, hits.rows, -delta, share)
        least = _least_accuracy(constraint)
        if least is not None:
            fails |= rate_p_below(hits.correct, hits.rows, least) <= share
        return fails
    if isinstance(hits, TwoClassHits | MeanHits):
        return hits.shows_below(line_at(constraint), level)
    # Too small a group is not judged: it cannot show a violation either.
    hits = hits.large
    fails = np.zeros(hits.rates[0].hits.shape[:-1], dtype=bool)
    share = level / max(1, comparisons(constraint, hits))
    if not compares(constraint):
        for x, n in columns(hits):
            fails |= rate_p_above(x, n, line_at(constraint)) <= share
        return fails
    for x1, x0, line in pairs(hits, constraint):
        rest = ~fails
        fails[rest] = shows_above(x1[rest], x0[rest], line, share)
    return fails


def breaches(constraint: Constraint, hits: Hits) -> BoolArray:
    """Tells in which draws the point value lies on the wrong side of the line.

    The same as `Finding.breaches`: an inviolable principle allows none.
    """
    if isinstance(hits, PairedHits):
        wrong = np.zeros(np.shape(hits.correct), dtype=bool)
        # A share of no rows is not defined and breaches nothing.
        if not hits.rows:
            return wrong
        if constraint.reference is not None:
            gain = (hits.only_model - hits.only_reference) / hits.rows
            wrong |= gain < (constraint.delta or 0.0)
        minimum = _least_accuracy(constraint)
        if minimum is not None:
            wrong |= hits.correct / hits.rows < minimum
        return wrong
    if isinstance(hits, TwoClassHits | MeanHits):
        return np.asarray((hits.value < line_at(constraint)) & hits.has_value)
    wrong = np.zeros(hits.rates[0].hits.shape[:-1], dtype=bool)
    for rates in hits.rates:
        # The groups whose rates are defined: what the others' are cannot mend a breach.
        points = rates.points[..., rates.has_trials]
        if points.shape[-1] < 1 + compares(constraint):
            continue
        most, least = points.max(axis=-1), points.min(axis=-1)
        if constraint.metric == "dp_ratio":
            # Where nobody is selected in any group there is no ratio.
            ratio = np.full(np.shape(most), np.inf)
            np.divide(least, most, out=ratio, where=most > 0)
            wrong |= ratio < line_at(constraint)
        else:
            value = most - least if compares(constraint) else most
            wrong |= value > line_at(constraint)
    return wrong


def compares(constraint: Constraint) -> bool:
    """Whether the metric compares groups pairwise (else each with the line)."""
    return constraint.metric not in ("worst_group_error", *ATTACKED)


def line_at(constraint: Constraint) -> float:
    """The line of what hits count: the constraint's threshold, 0 if it has none."""
    line = float(constraint.threshold or 0.0)
    # Of groups under attack the rows that do not survive are counted, as errors are.
    return 1 - line if constraint.metric in ATTACKED else line


def columns(hits: GroupHits) -> Iterator[tuple[IntArray, int]]:
    """Yields hits (...,) and trials of every group and kind of rate."""
    for rates in hits.rates:
        for i, trials in enumerate(rates.trials):
            yield rates.hits[..., i], int(trials)


def pairs(
    hits: GroupHits, constraint: Constraint
) -> Iterator[tuple[IntArray, IntArray, Line]]:
    """Yields every ordered pair of groups with the line it must stay below.

    gap <= tau reads p1 < p0 + tau for every pair; ratio >= t reads p1 < p0 / t.
    """
    at = line_at(constraint)
    for rates in hits.rates:
        for a, b in permutations(range(len(rates.trials)), 2):
            n1, n0 = int(rates.trials[a]), int(rates.trials[b])
            if constraint.metric == "dp_ratio":
                # "At least 0" promises nothing: every ratio lies below infinity.
                line = Line("ratio", 1 / at if at > 0 else float("inf"), n1, n0)
            else:
                line = Line("difference", at, n1, n0)
            yield rates.hits[..., a], rates.hits[..., b], line


def comparisons(constraint: Constraint, hits: GroupHits) -> int:
    """Number of tests for a violation: ordered pairs (or groups) x kinds of rate.

    Strata are kinds of rate of their own.
    """
    groups = [len(rates.trials) for rates in hits.rates]
    # Ordered pairs: either group of a pair may be the favoured one.
    return sum(n * (n - 1) if compares(constraint) else n for n in groups)


def utility_lines(constraint: Constraint, hits: PairedHits) -> int:
    """Number of lines that may be violated: one per reference, and the floor."""
    references = hits.references if constraint.reference is not None else 0
    return references + (_least_accuracy(constraint) is not None)


def utility_p(constraint: Constraint, hits: PairedHits, level: float = 0.5) -> float:
    """p-value of violation of one draw; Bonferroni over `utility_lines`.

    Values that are certainly above the level are coarse upper bounds.
    """
    lines = utility_lines(constraint, hits)
    p = 1.0
    if constraint.reference is not None:
        # No larger than that of any reference which is beaten by more.
        b, c, delta = hits.only_model, hits.only_reference, constraint.delta or 0.0
        p = gain_p_above(int(c), int(b), hits.rows, -delta, level / lines)
    least = _least_accuracy(constraint)
    if least is not None:
        p = min(p, float(rate_p_below(hits.correct, hits.rows, least)))
    # Either line may be the violated one, as with the pairs of `outside`.
    return min(1.0, lines * p)


def _least_accuracy(constraint: Constraint) -> float | None:
    # The twin comes from the trainer, who could weaken it: hence a floor beside it,
    # tested against a number and not against the twin.
    return constraint.threshold if constraint.reference is None else constraint.floor
