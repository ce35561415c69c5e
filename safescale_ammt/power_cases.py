"""One principle before any model: draws, the gate's decisions, and remedies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from safescale_ammt.certify import (
    BoolArray,
    Counted,
    GroupHits,
    PairedHits,
    breached,
    inside,
    outside,
)
from safescale_ammt.constitution import Constraint, Principle
from safescale_ammt.power_laws import PAIRWISE, SCALES, Scene, draw
from safescale_ammt.power_report import RowsNeeded
from safescale_ammt.rates import Rates

_STEPS = 1_000
_MOST_TIMES = 4_096.0


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

    def passes(
        self, constraint: Constraint, place: Scene, alpha: float, scale: float | None
    ) -> float:
        """P(pass) of this principle alone, with another line or other sizes."""
        drawn = self.drawn(constraint, place, scale)
        return float(inside(constraint, drawn, alpha).mean())


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


def least_line(
    case: Case, alpha: float, target: float, scale: float | None = None
) -> float | None:
    """Least certifiable line in steps of .001, None if there is none below 1."""

    def enough(step: int) -> bool:
        loose = _loosened(case.constraint, step)
        return case.passes(loose, case.place, alpha, scale) >= target

    if not enough(_STEPS - 1):
        return None
    low, high = 0, _STEPS - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    loose = _loosened(case.constraint, high)
    return loose.threshold if loose.reference is None else loose.delta


def _loosened(c: Constraint, step: int) -> Constraint:
    """The constraint with a tolerance of `step` thousandths."""
    tolerance = step / _STEPS
    if c.reference is not None:
        return replace(c, delta=-tolerance)
    line = tolerance if c.op == "<=" else (_STEPS - step) / _STEPS
    return replace(c, threshold=line)


def rows_needed(case: Case, alpha: float, target: float) -> RowsNeeded | None:
    """Least multiple of the rows that certifies the line as promised, within 3 %."""
    for everywhere in (False, True) if case.constraint.metric in PAIRWISE else (False,):
        factor = _least_factor(
            lambda f, e=everywhere: (  # type: ignore[misc]
                case.passes(
                    case.constraint, case.place.larger(f, everywhere=e), alpha, None
                )
                >= target
            )
        )
        if factor is not None:
            larger = case.place.larger(factor)
            by_group = dict(zip(larger.values, map(int, larger.sizes), strict=True))
            return RowsNeeded(factor, everywhere, by_group or {"all": larger.rows})
    return None


def _least_factor(enough: Callable[[float], bool]) -> float | None:
    if not enough(_MOST_TIMES):
        return None
    high = 2.0
    while not enough(high):
        high *= 2
    low = high / 2
    while high / low > 1.03:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
