"""One principle before any model: draws, the gate's decisions, and remedies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from safescale_ammt.constitution.principles import Constraint, Principle
from safescale_ammt.judging.certify import (
    BoolArray,
    Counted,
    GroupHits,
    PairedHits,
    breached,
    inside,
    outside,
)
from safescale_ammt.judging.group_rates import Rates
from safescale_ammt.judging.power.laws import PAIRWISE, SCALES, Scene, draw
from safescale_ammt.judging.power.report import RowsNeeded

_STEPS = 1_000
_MOST_TIMES = 4_096.0
_CLOSE = 1.05


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
    place: Scene
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
        if c.reference is not None:
            return -(c.delta or 0.0)
        line = c.threshold or 0.0
        return line if c.op == "<=" else 1 - line

    def drawn(
        self, constraint: Constraint, place: Scene, scale: float | None
    ) -> Counted:
        """Draws one law; the same law gives the same draws."""
        law = len(SCALES) if scale is None else SCALES.index(scale)
        rng = np.random.default_rng([self.seed, self.index, law])
        return draw(constraint, place, scale, self.draws, rng)

    def decisions(self, alpha: float, principles: int) -> tuple[BoolArray, BoolArray]:
        """Kept and broken promises, (laws, draws); Holm's first step for broken."""
        c = self.constraint
        laws = [self.drawn(c, self.place, scale) for scale in (*SCALES, None)]
        stacked = _stacked(laws)
        broken = outside(c, stacked, alpha / principles)
        if c.tier == "inviolable":
            broken |= breached(c, stacked)
        return inside(c, stacked, alpha), broken

    def enough(
        self, constraint: Constraint, place: Scene, goal: Goal, *, normal: bool
    ) -> bool:
        """Tells whether P(pass) of this principle alone reaches the goal."""
        drawn = self.drawn(constraint, place, goal.scale)
        kept = inside(constraint, drawn, goal.alpha, normal=normal)
        return float(kept.mean()) >= goal.target


def _stacked(laws: Sequence[Counted]) -> Counted:
    """Puts the draws of several laws along a new leading axis."""
    first = laws[0]
    if isinstance(first, PairedHits):
        pairs = [law for law in laws if isinstance(law, PairedHits)]
        return PairedHits(
            np.stack([p.correct for p in pairs]),
            np.stack([p.only_model for p in pairs]),
            np.stack([p.only_twin for p in pairs]),
            first.rows,
        )
    groups = [law for law in laws if isinstance(law, GroupHits)]
    rates = tuple(
        Rates(r.of, np.stack([g.rates[k].hits for g in groups]), r.trials)
        for k, r in enumerate(first.rates)
    )
    return GroupHits(rates, first.small)


def least_line(case: Case, goal: Goal) -> float | None:
    """Least certifiable line in steps of .001, None if there is none below 1.

    Bisected with the normal law, then loosened until the gate's own test agrees.
    """

    def enough(step: int, *, normal: bool) -> bool:
        loose = _loosened(case.constraint, step)
        return case.enough(loose, case.place, goal, normal=normal)

    low, high = 0, _STEPS - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle, normal=True) else (middle, high)
    while not enough(high, normal=False):
        high += 1
        if high >= _STEPS:
            return None
    loose = _loosened(case.constraint, high)
    return loose.threshold if loose.reference is None else loose.delta


def _loosened(c: Constraint, step: int) -> Constraint:
    """The constraint with a tolerance of `step` thousandths."""
    if c.reference is not None:
        return replace(c, delta=-step / _STEPS)
    return replace(c, threshold=(step if c.op == "<=" else _STEPS - step) / _STEPS)


def rows_needed(case: Case, goal: Goal) -> RowsNeeded | None:
    """Least multiple of the rows that certifies the line as promised, within 5 %.

    The sealed rows alone if that can be enough, else all rows. None if not even
    4,096 times the rows would be enough.
    """
    ways = (False, True) if case.constraint.metric in PAIRWISE else (False,)
    for everywhere in ways:
        factor = _least_factor(case, goal, everywhere=everywhere)
        if factor is not None:
            larger = case.place.larger(factor)
            by_group = dict(zip(larger.values, map(int, larger.sizes), strict=True))
            return RowsNeeded(factor, everywhere, by_group or {"all": larger.rows})
    return None


def _least_factor(case: Case, goal: Goal, *, everywhere: bool) -> float | None:

    def enough(factor: float, *, normal: bool) -> bool:
        place = case.place.larger(factor, everywhere=everywhere)
        return case.enough(case.constraint, place, goal, normal=normal)

    low, high = 1.0, _MOST_TIMES
    if not enough(high, normal=True):
        return None
    while high / low > _CLOSE:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle, normal=True) else (middle, high)
    while not enough(high, normal=False):
        high *= _CLOSE
    return high
