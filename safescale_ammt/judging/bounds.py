"""Bounds and p-value of one principle's counted hits.

The outcome is tested on the line itself (`certify`); bounds are the same tests
inverted, for people to read. Of many pairs only the extreme one is inverted in
full: another pair is first asked whether it can beat the bound found so far.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from safescale_ammt.binomial.intervals import clopper_pearson, rate_p_above, tango
from safescale_ammt.binomial.two_rates import (
    difference_lower,
    difference_upper,
    method,
    p_above,
    ratio_upper,
    shows_above,
    shows_below,
)
from safescale_ammt.constitution.principles import Constraint
from safescale_ammt.judging.certify import (
    Counted,
    GroupHits,
    PairedHits,
    columns,
    compares,
    comparisons,
    line_at,
    pairs,
    utility_p,
)


@dataclass(frozen=True)
class Bounds:
    """One-sided bounds on the scale of the constraint's threshold."""

    lower: float
    upper: float
    p_violated: float
    method: str


def bounds(constraint: Constraint, counted: Counted, alpha: float) -> Bounds:
    """Bounds and p-value of one piece of evidence (no leading axes).

    On the side of the promise over all groups, the small ones too; on the side of
    a violation over the large ones, at alpha divided by their comparisons.
    """
    if isinstance(counted, PairedHits):
        return _utility_bounds(constraint, counted, alpha)
    large = counted.large
    share = alpha / max(1, comparisons(constraint, large))
    if not compares(constraint):
        return _error_bounds(constraint, counted, alpha, share)
    p = min(
        (
            p_above(int(x1), int(x0), line, share)
            for x1, x0, line in pairs(large, constraint)
        ),
        default=1.0,
    )
    p = min(1.0, p * max(1, comparisons(constraint, large)))
    names = {
        method(line.n1, line.n0, alpha) for _, _, line in pairs(counted, constraint)
    }
    name = " and ".join(sorted(names)) or "none"
    if constraint.metric == "dp_ratio":
        return Bounds(_ratio_floor(counted, alpha), _ratio_roof(large, share), p, name)
    return Bounds(
        _gap_floor(large, constraint, share),
        _gap_roof(counted, constraint, alpha),
        p,
        name,
    )


def _gap_roof(counted: GroupHits, constraint: Constraint, alpha: float) -> float:
    """Largest upper bound over the pairs; a pair below the largest is only tested."""
    roof = -1.0
    widest_first = sorted(
        pairs(counted, constraint),
        key=lambda p: float(p[1]) / max(1, p[2].n0) - float(p[0]) / max(1, p[2].n1),
    )
    for x1, x0, line in widest_first:
        if not shows_below(x1, x0, replace(line, at=roof), alpha):
            bound = difference_upper(int(x1), line.n1, int(x0), line.n0, alpha)
            roof = max(roof, bound)
    return min(1.0, max(roof, 0.0))


def _gap_floor(counted: GroupHits, constraint: Constraint, level: float) -> float:
    """Largest lower bound over the pairs, at a level divided by their number."""
    floor = 0.0
    for x1, x0, line in pairs(counted, constraint):
        if shows_above(x1, x0, replace(line, at=floor), level):
            bound = difference_lower(int(x1), line.n1, int(x0), line.n0, level)
            floor = max(floor, bound)
    return floor


def _ratio_floor(counted: GroupHits, alpha: float) -> float:
    """Lower bound of the least ratio: 1 / the largest upper bound of p1 / p0."""
    largest = 1.0
    for x1, x0, line in pairs(counted, _ANY_RATIO):
        if not shows_below(x1, x0, replace(line, at=largest), alpha):
            bound = ratio_upper(int(x1), line.n1, int(x0), line.n0, alpha)
            largest = max(largest, bound)
    return 1 / largest


def _ratio_roof(counted: GroupHits, level: float) -> float:
    """Upper bound of the least ratio: the least upper bound of p1 / p0."""
    least = 1.0
    for x1, x0, line in pairs(counted, _ANY_RATIO):
        if shows_below(x1, x0, replace(line, at=least), level):
            bound = ratio_upper(int(x1), line.n1, int(x0), line.n0, level)
            least = min(least, bound)
    return least


def _error_bounds(
    constraint: Constraint, counted: GroupHits, alpha: float, share: float
) -> Bounds:
    large = counted.large
    upper = [
        clopper_pearson(int(x), n, alpha)[1] if n else 1.0 for x, n in columns(counted)
    ]
    lower = [clopper_pearson(int(x), n, share)[0] for x, n in columns(large)]
    p = [float(rate_p_above(x, n, line_at(constraint))) for x, n in columns(large)]
    adjusted = min(1.0, min(p, default=1.0) * max(1, len(p)))
    return Bounds(max(lower, default=0.0), max(upper), adjusted, "Clopper-Pearson")


def _utility_bounds(
    constraint: Constraint, counted: PairedHits, alpha: float
) -> Bounds:
    p = float(utility_p(constraint, counted))
    if constraint.reference is None:
        lower, upper = clopper_pearson(int(counted.correct), counted.rows, alpha)
        return Bounds(lower, upper, p, "Clopper-Pearson")
    b, c = int(counted.only_model), int(counted.only_twin)
    lower, upper = tango(b, c, counted.rows, alpha)
    floor = " and Clopper-Pearson" if constraint.floor is not None else ""
    return Bounds(lower, upper, p, f"Tango{floor}")


_ANY_RATIO = Constraint(metric="dp_ratio", op=">=", threshold=1.0)
