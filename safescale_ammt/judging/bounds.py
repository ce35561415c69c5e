"""Bounds and p-value of one principle's counted hits.

The outcome is tested on the line itself (`certify`); bounds are the same tests
inverted, for people to read. Of many pairs only the extreme one is inverted in
full: another pair is first tested at the bound found so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from safescale_ammt.binomial.exact import Line
from safescale_ammt.binomial.intervals import clopper_pearson, rate_p_above
from safescale_ammt.binomial.paired import EXACT_PAIRED, gain_bounds
from safescale_ammt.binomial.two_rates import (
    difference_upper,
    method,
    p_above,
    ratio_upper,
    shows_below,
)
from safescale_ammt.constitution.principles import ATTACKED, Constraint
from safescale_ammt.judging.attack_words import EVERY, SEARCHED, image_method
from safescale_ammt.judging.certify import (
    GroupHits,
    Hits,
    PairedHits,
    columns,
    compares,
    comparisons,
    line_at,
    pairs,
    utility_p,
)
from safescale_ammt.judging.evidence import IntArray
from safescale_ammt.judging.findings import FAILS, NO_METHOD
from safescale_ammt.judging.skill import MeanHits, TwoClassHits

Pair = tuple[IntArray, IntArray, Line]
"""Hits of two samples and a line between their rates, as `certify.pairs` yields."""
# With 1 as its line a ratio is bounded on its own scale; the threshold plays no part.
_ANY_RATIO = Constraint(metric="dp_ratio", op=">=", threshold=1.0)


@dataclass(frozen=True)
class Bounds:
    """One-sided bounds on the scale of the constraint's threshold."""

    lower: float
    upper: float
    p_violated: float
    method: str

    def told(
        self, constraint: Constraint, value: float | None, outcome: str
    ) -> tuple[float | None, float | None, str]:
        """Returns the bounds that a finding tells beside its value, and their method.

        Of a value that is not defined other groups show one bound at most, the one by
        which they violate the promise. Where nothing is promised, nothing was tested.
        """
        known, fails = value is not None, outcome == FAILS
        lower = self.lower if known or (fails and constraint.op == "<=") else None
        upper = self.upper if known or (fails and constraint.op == ">=") else None
        nothing = constraint.promises_nothing or (lower is None and upper is None)
        return lower, upper, NO_METHOD if nothing else self.method


def bounds(constraint: Constraint, hits: Hits, alpha: float) -> Bounds:
    """Bounds and p-value of one piece of evidence (no leading axes).

    On the side of the promise over all groups, the small ones too; on the side of
    a violation over the large ones, at alpha divided by their comparisons.
    """
    if isinstance(hits, PairedHits):
        p = utility_p(constraint, hits, alpha)
        if constraint.reference is None:
            ends = clopper_pearson(int(hits.correct), hits.rows, alpha)
            return _of_attack(constraint, Bounds(*ends, p, "Clopper-Pearson"))
        b, c = int(hits.only_model), int(hits.only_reference)
        floor = " and Clopper-Pearson" if constraint.floor is not None else ""
        return Bounds(*gain_bounds(b, c, hits.rows, alpha), p, EXACT_PAIRED + floor)
    if isinstance(hits, TwoClassHits | MeanHits):
        return Bounds(*hits.bounds(line_at(constraint), alpha))
    if compares(constraint):
        return _gap_bounds(constraint, hits, alpha)
    large = hits.large
    share = alpha / max(1, comparisons(constraint, large))
    # A group without rows may have any error rate: it leaves the upper bound at 1.
    upper = [
        clopper_pearson(int(x), n, alpha)[1] if n else 1.0 for x, n in columns(hits)
    ]
    lower = [clopper_pearson(int(x), n, share)[0] for x, n in columns(large)]
    each = [float(rate_p_above(x, n, line_at(constraint))) for x, n in columns(large)]
    adjusted = min(1.0, min(each, default=1.0) * max(1, len(each)))
    low, high = max(lower, default=0.0), max(upper)
    if constraint.metric in ATTACKED:
        low, high = 1 - high, 1 - low
    return _of_attack(constraint, Bounds(low, high, adjusted, "Clopper-Pearson"))


def _of_attack(constraint: Constraint, found: Bounds) -> Bounds:
    """Returns bounds with the attack behind them: a search bounds from above alone."""
    if constraint.image_threat:
        lower = found.lower if constraint.provable else 0.0
        return replace(found, lower=lower, method=image_method(constraint.image_threat))
    if constraint.table_threat is None:
        return found
    if constraint.table_threat.enumerated:
        return replace(found, method=EVERY)
    return replace(found, lower=0.0, method=SEARCHED)


def _gap_bounds(constraint: Constraint, hits: GroupHits, alpha: float) -> Bounds:
    """Bounds of what compares groups pair by pair: a gap, or a ratio."""
    large = hits.large
    tests = max(1, comparisons(constraint, large))
    share = alpha / tests
    p_values = [
        p_above(int(x1), int(x0), line, share)
        for x1, x0, line in pairs(large, constraint)
    ]
    p = min(1.0, min(p_values, default=1.0) * tests)
    names = {method(line) for _, _, line in pairs(hits, constraint)}
    name = " and ".join(sorted(names)) or NO_METHOD
    if constraint.metric == "dp_ratio":
        # The largest ratio p1 / p0 of any pair is 1 / the least one.
        lower = 1 / _largest_upper(pairs(hits, _ANY_RATIO), 1.0, alpha)
        upper = _least_upper(pairs(large, _ANY_RATIO), 1.0, share)
        return Bounds(lower, upper, p, name)
    # The pair with the widest gap first: few of the others can exceed its bound.
    widest_first = sorted(
        pairs(hits, constraint),
        key=lambda pair: (
            float(pair[1]) / max(1, pair[2].n0) - float(pair[0]) / max(1, pair[2].n1)
        ),
    )
    upper = min(1.0, max(_largest_upper(widest_first, -1.0, alpha), 0.0))
    # A lower bound of p1 - p0 is an upper bound of p0 - p1 with the sign changed
    # (subtracted from 0, since -0.0 would be written to the verdict as such).
    exchanged = ((x0, x1, line.swapped) for x1, x0, line in pairs(large, constraint))
    lower = 0.0 - _least_upper(exchanged, 0.0, share)
    return Bounds(lower, upper, p, name)


def _largest_upper(ordered: Iterable[Pair], start: float, alpha: float) -> float:
    """Largest upper bound of the pairs, at least `start`, each pair's at alpha."""
    largest = start
    for x1, x0, line in ordered:
        # A rate without trials may be any: nothing bounds what is compared with it.
        if not line.n1 or not line.n0:
            return math.inf
        if not shows_below(x1, x0, replace(line, at=largest), alpha):
            largest = max(largest, _upper(x1, x0, line, alpha))
    return largest


def _least_upper(ordered: Iterable[Pair], start: float, level: float) -> float:
    """Least upper bound of the pairs, at most `start`, each pair's at the level."""
    least = start
    for x1, x0, line in ordered:
        if shows_below(x1, x0, replace(line, at=least), level):
            least = min(least, _upper(x1, x0, line, level))
    return least


def _upper(x1: IntArray, x0: IntArray, line: Line, alpha: float) -> float:
    upper = ratio_upper if line.kind == "ratio" else difference_upper
    return upper(int(x1), line.n1, int(x0), line.n0, alpha)
