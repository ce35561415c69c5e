"""One principle before any model: draws, the gate's decisions, and remedies."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from safescale_ammt.constitution.principles import MAJORITY, Constraint, Principle
from safescale_ammt.judging.certify import (
    BoolArray,
    GroupHits,
    Hits,
    breaches,
    inside,
    outside,
)
from safescale_ammt.judging.power.laws import PAIRWISE, SCALES, draw
from safescale_ammt.judging.power.report import RowsNeeded
from safescale_ammt.judging.power.sizes import Sizes

_STEPS = 1_000
_LARGEST_FACTOR = 4_096.0
_FACTOR_PRECISION = 1.05


@dataclass(frozen=True)
class Goal:
    """P(pass) that one principle must reach, at which level and under which law.

    Attributes:
        target: least P(pass).
        alpha: error level of the gate.
        scale: true gap as a multiple of the tolerance, None: the spread law.
    """

    target: float
    alpha: float
    scale: float | None = None


@dataclass(frozen=True)
class Case:
    """One principle at its sizes, with its own stream of random numbers."""

    principle: Principle
    sizes: Sizes
    index: int
    draws: int
    seed: int

    @property
    def constraint(self) -> Constraint:
        """The principle's constraint."""
        return self.principle.constraint

    @property
    def tolerance(self) -> float:
        """What the line leaves free: a gap, lost ratio, an error, a shortfall."""
        c = self.constraint
        if c.reference == MAJORITY:
            return self.sizes.beyond_constant - (c.delta or 0.0)
        if c.reference is not None:
            return -(c.delta or 0.0)
        line = c.threshold or 0.0
        return line if c.op == "<=" else 1 - line

    def sample(self, constraint: Constraint, sizes: Sizes, scale: float | None) -> Hits:
        """Draws from one law; the same law gives the same draws."""
        # One stream per law: a bisection over lines or rows compares like with like,
        # and the answer does not depend on what was drawn before.
        law = len(SCALES) if scale is None else SCALES.index(scale)
        rng = np.random.default_rng([self.seed, self.index, law])
        return draw(constraint, sizes, scale, self.draws, rng)

    def decisions(self, alpha: float, principles: int) -> tuple[BoolArray, BoolArray]:
        """Passes and failures, (laws, draws); Holm's first step for failures."""
        c = self.constraint
        if c.promises_nothing:
            passes = np.ones((len(SCALES) + 1, self.draws), dtype=bool)
            return passes, ~passes
        laws = [self.sample(c, self.sizes, scale) for scale in (*SCALES, None)]
        # All laws along a new leading axis: a test of an array costs hardly more than
        # one of a row (`two_rates.shows_below`).
        first = laws[0]
        hits: Hits
        if not isinstance(first, GroupHits):
            columns: dict[str, Any] = {
                f.name: [getattr(law, f.name) for law in laws] for f in fields(first)
            }
            # Sizes are the same under every law, counts are not.
            for name, column in columns.items():
                columns[name] = np.stack(column) if np.ndim(column[0]) else column[0]
            hits = type(first)(**columns)
        else:
            groups = [law for law in laws if isinstance(law, GroupHits)]
            rates = tuple(
                replace(r, hits=np.stack([g.rates[k].hits for g in groups]))
                for k, r in enumerate(first.rates)
            )
            hits = GroupHits(rates, first.small)
        fails = outside(c, hits, alpha / principles)
        if c.tier == "inviolable":
            fails |= breaches(c, hits)
        return inside(c, hits, alpha), fails

    def enough(
        self, constraint: Constraint, sizes: Sizes, goal: Goal, *, normal: bool
    ) -> bool:
        """Tells whether P(pass) of this principle alone reaches the goal."""
        # Holm's correction is for failures: a pass asks every principle by itself.
        hits = self.sample(constraint, sizes, goal.scale)
        passes = inside(constraint, hits, goal.alpha, normal=normal)
        return float(passes.mean()) >= goal.target


def least_line(case: Case, goal: Goal) -> float | None:
    """Least certifiable line in steps of .001, None if there is none below 1.

    Bisected with the normal law, then loosened until the gate's own test agrees.
    """

    def enough(step: int, *, normal: bool) -> bool:
        return case.enough(
            _relax(case.constraint, step), case.sizes, goal, normal=normal
        )

    # Exact tests are dear: they only confirm what the normal law has found.
    low, high = 0, _STEPS - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle, normal=True) else (middle, high)
    while not enough(high, normal=False):
        high += 1
        if high >= _STEPS:
            return None
    relaxed = _relax(case.constraint, high)
    return relaxed.threshold if relaxed.reference is None else relaxed.delta


def _relax(c: Constraint, step: int) -> Constraint:
    """The constraint with a tolerance of `step` thousandths."""
    if c.reference is not None:
        # The twin may be missed by a step, a constant is beaten by a step less.
        most = 1.0 if c.reference == MAJORITY else 0.0
        return replace(c, delta=most - step / _STEPS)
    return replace(c, threshold=(step if c.op == "<=" else _STEPS - step) / _STEPS)


def rows_needed(case: Case, goal: Goal) -> RowsNeeded | None:
    """Least multiple of the rows that certifies the line as promised, within 5 %.

    The sealed rows alone if that can be enough, else all rows. None if not even
    4,096 times the rows would be enough.
    """

    def enough(sizes: Sizes, *, normal: bool) -> bool:
        return case.enough(case.constraint, sizes, goal, normal=normal)

    # Errors and accuracy are not drawn from the rows of train and constraint: more of
    # those would change nothing.
    for everywhere in (False, True) if case.constraint.metric in PAIRWISE else (False,):
        times = partial(case.sizes.larger, everywhere=everywhere)
        low, high = 1.0, _LARGEST_FACTOR
        if not enough(times(high), normal=True):
            continue
        while high / low > _FACTOR_PRECISION:
            middle = math.sqrt(low * high)
            reached = enough(times(middle), normal=True)
            low, high = (low, middle) if reached else (middle, high)
        while not enough(times(high), normal=False):
            high *= _FACTOR_PRECISION
        larger = times(high)
        by_group = dict(zip(larger.values, map(int, larger.group_rows), strict=True))
        return RowsNeeded(high, everywhere, by_group or {"all": larger.rows})
    return None
