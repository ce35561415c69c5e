"""Do counted hits keep a promise, break it, or leave it open?

The judge gives these functions the hits that were counted, the power check gives
them arrays of simulated hits: one code decides both.

    inside(constraint, counted, alpha)    every one-sided 1 - alpha bound is inside
    outside(constraint, counted, level)   the violation's p-value is <= level

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
from scipy.special import ndtr

from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.intervals import (
    rate_p_above,
    rate_p_below,
    tango_statistic,
)
from safescale_ammt.binomial.two_rates import shows_above, shows_below
from safescale_ammt.constitution.principles import Constraint
from safescale_ammt.judging.evidence import IntArray
from safescale_ammt.judging.group_rates import Rates

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupHits:
    """Rates of groups, hits (..., g), and which groups (g,) are too small."""

    rates: tuple[Rates, ...]
    small: BoolArray

    @property
    def large(self) -> GroupHits:
        """Only the groups that are large enough to be judged."""
        keep = ~self.small
        rates = tuple(r.of_groups(keep) for r in self.rates)
        return GroupHits(rates, self.small[keep])


@dataclass(frozen=True)
class PairedHits:
    """Rows that a model (and its twin) gets right; counts are (...,) arrays.

    Attributes:
        correct: rows that the model gets right.
        only_model: rows that only the model gets right.
        only_twin: rows that only the twin gets right.
        rows: all rows.
    """

    correct: IntArray
    only_model: IntArray
    only_twin: IntArray
    rows: int


Counted = GroupHits | PairedHits


def inside(
    constraint: Constraint, counted: Counted, alpha: float, *, normal: bool = False
) -> BoolArray:
    """Tells which draws keep the promise at level alpha, shape (...,).

    A group that is too small, or the lack of a second group, leaves it open.
    `normal` replaces exact tests of two rates by normal ones: a quick first guess
    for the power check, never for the gate.
    """
    if isinstance(counted, PairedHits):
        return _utility_inside(constraint, counted, alpha)
    shape = counted.rates[0].hits.shape[:-1]
    if counted.small.any() or (compares(constraint) and len(counted.small) < 2):
        return np.zeros(shape, dtype=bool)
    kept = np.ones(shape, dtype=bool)
    if not compares(constraint):
        for hits, trials in columns(counted):
            kept &= rate_p_below(hits, trials, line_at(constraint)) <= alpha
        return kept
    for x1, x0, line in pairs(counted, constraint):
        kept[kept] = shows_below(x1[kept], x0[kept], line, alpha, normal=normal)
    return kept


def outside(constraint: Constraint, counted: Counted, level: float) -> BoolArray:
    """Tells which draws break the promise: p-value of violation <= level."""
    if isinstance(counted, PairedHits):
        return utility_p(constraint, counted) <= level
    counted = counted.large
    broken = np.zeros(counted.rates[0].hits.shape[:-1], dtype=bool)
    share = level / max(1, comparisons(constraint, counted))
    if not compares(constraint):
        for hits, trials in columns(counted):
            broken |= rate_p_above(hits, trials, line_at(constraint)) <= share
        return broken
    for x1, x0, line in pairs(counted, constraint):
        rest = ~broken
        broken[rest] = shows_above(x1[rest], x0[rest], line, share)
    return broken


def breached(constraint: Constraint, counted: Counted) -> BoolArray:
    """Tells in which draws the point value lies on the wrong side of the line.

    The same as `Finding.breaches`: an inviolable principle allows none.
    """
    if isinstance(counted, PairedHits):
        return _utility_breached(constraint, counted)
    wrong = np.zeros(counted.rates[0].hits.shape[:-1], dtype=bool)
    for rates in counted.rates:
        points = rates.points
        most, least = points.max(axis=-1), points.min(axis=-1)
        if constraint.metric == "dp_ratio":
            ratio = np.where(most > 0, least / np.where(most > 0, most, 1.0), 1.0)
            wrong |= ratio < line_at(constraint)
        else:
            value = most - least if compares(constraint) else most
            wrong |= value > line_at(constraint)
    return wrong


def compares(constraint: Constraint) -> bool:
    """Whether the metric compares groups pairwise (else each with the line)."""
    return constraint.metric != "worst_group_error"


def line_at(constraint: Constraint) -> float:
    """The constraint's threshold, 0 if it has none."""
    return float(constraint.threshold or 0.0)


def columns(counted: GroupHits) -> Iterator[tuple[IntArray, int]]:
    """Yields hits (...,) and trials of every group and kind of rate."""
    for rates in counted.rates:
        for i, trials in enumerate(rates.trials):
            yield rates.hits[..., i], int(trials)


def pairs(
    counted: GroupHits, constraint: Constraint
) -> Iterator[tuple[IntArray, IntArray, Line]]:
    """Yields every ordered pair of groups with the line it must stay below.

    gap <= tau reads p1 < p0 + tau for every pair; ratio >= t reads p1 < p0 / t.
    """
    at = line_at(constraint)
    for rates in counted.rates:
        for a, b in permutations(range(len(rates.trials)), 2):
            n1, n0 = int(rates.trials[a]), int(rates.trials[b])
            if constraint.metric == "dp_ratio":
                line = Line("ratio", 1 / at if at > 0 else float("inf"), n1, n0)
            else:
                line = Line("difference", at, n1, n0)
            yield rates.hits[..., a], rates.hits[..., b], line


def comparisons(constraint: Constraint, counted: GroupHits) -> int:
    """Number of tests for a violation: ordered pairs (or groups) x kinds of rate."""
    groups = len(counted.small)
    each = groups * (groups - 1) if compares(constraint) else groups
    return each * len(counted.rates)


def _utility_inside(
    constraint: Constraint, counted: PairedHits, alpha: float
) -> BoolArray:
    """Both the twin's line (Tango) and the floor (Clopper-Pearson), no correction."""
    kept = np.ones(np.shape(counted.correct), dtype=bool)
    if constraint.reference is not None:
        kept &= ndtr(-_tango_z(constraint, counted)) <= alpha
    line = _absolute_line(constraint)
    if line is not None:
        kept &= rate_p_above(counted.correct, counted.rows, line) <= alpha
    return kept


def utility_p(constraint: Constraint, counted: PairedHits) -> NDArray[np.float64]:
    """p-value of violation; Bonferroni over the twin's line and the floor."""
    parts = []
    if constraint.reference is not None:
        parts.append(ndtr(_tango_z(constraint, counted)))
    line = _absolute_line(constraint)
    if line is not None:
        parts.append(rate_p_below(counted.correct, counted.rows, line))
    return np.asarray(np.minimum(1.0, len(parts) * np.minimum.reduce(parts)))


def _tango_z(constraint: Constraint, counted: PairedHits) -> NDArray[np.float64]:
    delta = constraint.delta or 0.0
    return tango_statistic(counted.only_model, counted.only_twin, counted.rows, delta)


def _absolute_line(constraint: Constraint) -> float | None:
    return constraint.threshold if constraint.reference is None else constraint.floor


def _utility_breached(constraint: Constraint, counted: PairedHits) -> BoolArray:
    wrong = np.zeros(np.shape(counted.correct), dtype=bool)
    if constraint.reference is not None:
        gain = (counted.only_model - counted.only_twin) / counted.rows
        wrong |= gain < (constraint.delta or 0.0)
    line = _absolute_line(constraint)
    if line is not None:
        wrong |= counted.correct / counted.rows < line
    return wrong
