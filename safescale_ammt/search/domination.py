"""Which of two measured candidates is better, and which are not dominated.

Constrained domination after Deb (2000, "An efficient constraint handling method
for genetic algorithms"): a feasible candidate beats an infeasible one; among
equals the smaller

    F = loss + l1 log(FLOPs / FLOPs_ref) + l2 sum of violations

wins, and of equal F the older one: a new candidate has to be better. One whose
loss is not finite loses against all others.

A *violation* here is an excess that the data have proved: the lower confidence
bound of a gap minus its tolerance, 0 if the bound lies inside. On the few
hundred positives of a development split the point gap of equally good networks
scatters by about .05, ten times the differences in loss, so a point test would
rank candidates by luck.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Measurement:
    """What was measured of one candidate on one budget.

    Attributes:
        loss: mean validation loss in nats; not finite if training diverged.
        flops: FLOPs of one row's forward pass, > 0.
        violations: proven excess by principle id, each >= 0.
    """

    loss: float
    flops: int
    violations: Mapping[str, float] = field(default_factory=dict)

    @property
    def diverged(self) -> bool:
        """Whether the loss is not finite."""
        return not math.isfinite(self.loss)

    @property
    def violation(self) -> float:
        """Sum of the proven violations."""
        return sum(self.violations.values())

    @property
    def feasible(self) -> bool:
        """Whether training converged and no violation is proven."""
        return not self.diverged and self.violation <= 0


@dataclass(frozen=True)
class Fitness:
    """The scalar F: smaller is better.

    Attributes:
        complexity_weight: l1, nats per factor e of FLOPs.
        violation_weight: l2, nats per unit of violation.
        reference_flops: FLOPs of the genome with complexity 0.
    """

    complexity_weight: float
    violation_weight: float
    reference_flops: int

    def of(self, m: Measurement) -> float:
        """Returns F; infinite if training diverged."""
        if m.diverged:
            return math.inf
        complexity = math.log(m.flops / self.reference_flops)
        return (
            m.loss
            + self.complexity_weight * complexity
            + self.violation_weight * m.violation
        )

    def key(self, m: Measurement, age: int) -> tuple[bool, float, int]:
        """Returns a sort key: the best comes first.

        Args:
            m: what was measured.
            age: order of birth, 0 for the oldest.
        """
        # False sorts before True: the feasible come first.
        return (not m.feasible, self.of(m), age)


def dominates(a: Measurement, b: Measurement) -> bool:
    """Says whether `a` is nowhere worse than `b` and somewhere better.

    The objectives are loss, FLOPs and violation.
    """
    # NaN compares with nothing, so that divergence is settled before the objectives.
    if a.diverged or b.diverged:
        return b.diverged and not a.diverged
    first = (a.loss, a.flops, a.violation)
    second = (b.loss, b.flops, b.violation)
    return first != second and all(x <= y for x, y in zip(first, second, strict=True))


def pareto_front(measured: Sequence[Measurement]) -> list[int]:
    """Returns the positions of those that no other dominates, ascending."""
    return [
        i
        for i, m in enumerate(measured)
        if not any(dominates(other, m) for other in measured)
    ]
