"""Loss gaps: how far the mean bounded losses of two groups lie apart.

Of two groups the difference of means is at most U(m_a) - L(m_b), with bounds that
hold at half of the level each (`binomial.bounded_means`). That all differences are
small is shown at alpha by each of them at alpha; that one is not, at alpha by the
number of comparisons (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.bounded_means import Floats, mean_bounds
from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.constitution.principles import Principle
from safescale_ammt.judging.findings import (
    FAILS,
    HOLDS,
    UNDECIDED,
    Finding,
    GroupRate,
    reason,
)

METHOD = "diversified bets (Waudby-Smith and Ramdas), half of the level each mean"


def judge_loss_gap(
    principle: Principle,
    losses: Floats,
    codes: NDArray[np.int64],
    sizes: GroupRule,
    *,
    names: Sequence[str],
    alpha: float,
) -> Finding:
    """Judges a promise on losses, by rows that the model was not fitted on.

    Args:
        principle: the promise.
        losses: in [0, 1], of independent rows (n,).
        codes: of the rows' groups (n,).
        sizes: least rows of a group that is judged.
        names: values of the group in code order.
        alpha: one-sided error level.
    """
    c = principle.constraint
    groups = [losses[codes == code] for code in range(len(names))]
    large = [i for i, group in enumerate(groups) if len(group) >= sizes.min_n]
    # Of all groups: what is promised is promised to the small ones, too.
    halves = [mean_bounds(group, alpha / 2) for group in groups]
    upper = max((a[1] - b[0] for a, b in permutations(halves, 2)), default=1.0)
    pairs = len(large) * (len(large) - 1)
    level = alpha / 2 / max(1, pairs)
    sharp = [mean_bounds(groups[i], level) for i in large]
    lower = max((a[0] - b[1] for a, b in permutations(sharp, 2)), default=0.0)
    each = tuple(
        group_loss(name, group, alpha, judged=i in large)
        for i, (name, group) in enumerate(zip(names, groups, strict=True))
    )
    means = [rate.rate for rate in each if rate.rate is not None]
    value = max(means) - min(means) if len(means) > 1 else None
    too_small = tuple(rate.value for rate in each if not rate.judged)
    outcome = UNDECIDED
    if value is not None and (
        c.promises_nothing or (upper <= c.line and not too_small)
    ):
        outcome = HOLDS
    elif pairs and lower > c.line:
        outcome = FAILS
    finding = Finding(
        principle=principle.id,
        metric=c.metric,
        group=c.group,
        tier=c.tier,
        op=c.op,
        threshold=c.line,
        value=value,
        lower=None if value is None else max(0.0, lower),
        upper=None if value is None else min(1.0, upper),
        alpha=alpha,
        outcome=outcome,
        # The test is at this level alone: a p-value that is valid, and coarse.
        p_violated=alpha if outcome == FAILS else 1.0,
        method=METHOD,
        reason="",
        too_small=too_small,
        by_group=each,
    )
    if value is None:
        said = f"{c.metric}{c.over} is not defined: rows are of fewer than two groups."
        return replace(finding, reason=said)
    return replace(finding, reason=reason(finding))


def group_loss(name: str, losses: Floats, alpha: float, *, judged: bool) -> GroupRate:
    """Returns a group's mean loss; hits are the rows whose error reaches the bound."""
    n, of = len(losses), "mean_loss"
    if not n:
        return GroupRate(name, of, 0, 0, 0, 0, None, None, None, judged)
    low, high = mean_bounds(losses, alpha)
    hits = int((losses >= 1).sum())
    return GroupRate(name, of, n, 0, hits, n, float(losses.mean()), low, high, judged)
