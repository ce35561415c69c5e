"""Laws that hits are drawn from before there is any model.

All that is known are counts. What a model's rates will be is assumed, and the
assumptions are written down with the answer:

    true positive rate     .6, whose variance is within 4 % of the largest one
    selection rate         the base rate of the class in train and constraint
    false positive rate    what follows from the two: base (1 - .6) / (1 - base)
    errors (accuracy, worst group, under attack)
                           three quarters of what the line allows
    model against twin     3 % of the rows answered differently
    precision, recall, balanced accuracy, AUC, accuracy against a constant
                           three quarters of the errors that the line allows, the
                           classes' shares those of train and constraint (`skill`)

At a *true gap* of gamma the groups, from the smallest to the largest, lie in turn
gamma / 2 below and above the assumed rate. Under the *spread* law each group's
true rate is normal around the assumed one with variance p (1 - p) / m: training
aims at equal rates, but knows them only from the m rows of train and constraint
that its multipliers see (cross-fitted, so that all of them count).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from safescale_ammt.constitution.principles import (
    MAJORITY,
    SKILL_METRICS,
    Constraint,
)
from safescale_ammt.judging.certify import GroupHits, Hits, PairedHits, line_at
from safescale_ammt.judging.group_rates import RATES_OF
from safescale_ammt.judging.power.sizes import ASSUMED_TPR, Sizes
from safescale_ammt.judging.power.skill import (
    ASSUMED_SHARE,
    draw_against_constant,
    draw_skill,
)

ASSUMED_DISCORDANCE = 0.03
PAIRWISE = tuple(name for name in RATES_OF if name != "worst_group_error")
SCALES = (0.0, 0.25, 0.5, 1.0, 1.5)
"""True gaps of the table, as multiples of the tolerance."""
ASSUMPTIONS = (
    f"True positive rates are near {ASSUMED_TPR:g}, selection rates near base rates.",
    "Training aims at equal rates and misses by the error of train and constraint.",
    f"Errors that a line bounds are {ASSUMED_SHARE:g} of what it allows.",
    f"Model and twin are equally good and differ on {ASSUMED_DISCORDANCE:.0%} of rows.",
    "Principles are drawn independently of each other.",
)
SIBLINGS = (
    "Training learns from each row of an entity as from one of a stranger; if they are "
    "alike it misses by more."
)
"""What is assumed besides where entities have several rows."""


def draw(
    constraint: Constraint,
    sizes: Sizes,
    scale: float | None,
    draws: int,
    rng: Generator,
) -> Hits:
    """Draws what the sealed rows may show.

    Args:
        constraint: the principle's constraint.
        sizes: the sizes at which it is judged.
        scale: true gap as a multiple of the tolerance; None: the spread law.
        draws: number of draws.
        rng: source of randomness.

    Returns:
        Hits with one leading axis (draws,).
    """
    if constraint.metric in SKILL_METRICS:
        return draw_skill(constraint, sizes, scale, draws, rng)
    if constraint.reference == MAJORITY:
        return draw_against_constant(constraint, sizes, scale, draws, rng)
    if constraint.metric == "accuracy" or not sizes.values:
        return _draw_paired(constraint, sizes.rows, scale, draws, rng)
    groups = len(sizes.values)
    rates = []
    for k in range(len(sizes.kinds)):
        if constraint.metric in PAIRWISE:
            low, high = _rates_apart(constraint, float(sizes.base[k]), scale or 0.0)
            # Ranks by size, ties in the order of the groups: hence a stable sort.
            order = np.argsort(sizes.trials[k], kind="stable")
            p = np.where(np.argsort(order, kind="stable") % 2 == 0, low, high)
        else:
            share = ASSUMED_SHARE if scale is None else scale
            p = np.full(groups, min(1.0, share * line_at(constraint)))
        if scale is None and constraint.metric in PAIRWISE:
            # A group without rows in train and constraint has the error of one row.
            error = np.sqrt(p * (1 - p) / np.maximum(sizes.dual[k], 1))
            # The normal law has tails outside [0, 1].
            p = np.clip(rng.normal(p, error, (draws, groups)), 0.0, 1.0)
        hits = rng.binomial(sizes.trials[k], p, (draws, groups))
        rates.append(sizes.rates(k, hits))
    return GroupHits(tuple(rates), sizes.small)


def _rates_apart(
    constraint: Constraint, base: float, scale: float
) -> tuple[float, float]:
    """Two rates around the base whose gap is `scale` times the tolerance."""
    if constraint.metric == "dp_ratio":
        ratio = max(0.0, 1 - scale * (1 - line_at(constraint)))
        high = min(1.0, 2 * base / (1 + ratio))
        return ratio * high, high
    gap = min(1.0, scale * line_at(constraint))
    # Near 0 and 1 the pair is shifted, not cut: the gap keeps its width.
    low = min(max(0.0, base - gap / 2), 1 - gap)
    return low, low + gap


def _draw_paired(
    constraint: Constraint, rows: int, scale: float | None, draws: int, rng: Generator
) -> PairedHits:
    """Right answers, and rows that only one of model and twin gets right."""
    twin = constraint.reference is not None
    line = constraint.floor if twin else constraint.threshold
    # Beside a twin the scale moves the shortfall against it, not the errors.
    share = ASSUMED_SHARE if scale is None or twin else scale
    errors = 0.0 if line is None else min(1.0, share * (1 - line))
    correct = rng.binomial(rows, np.full(draws, 1 - errors))
    if not twin:
        none = np.zeros_like(correct)
        return PairedHits(correct, none, none, rows)
    shortfall = min(1.0, (scale or 0.0) * -(constraint.delta or 0.0))
    # A shortfall needs at least as many discordant rows as it is large.
    discordant = max(ASSUMED_DISCORDANCE, shortfall)
    cells = [
        (discordant - shortfall) / 2,
        (discordant + shortfall) / 2,
        1 - discordant,
    ]
    # Drawn apart from `correct`: the floor and the twin's line are tests of their own.
    only_model, only_twin, _ = rng.multinomial(rows, cells, draws).T
    return PairedHits(correct, only_model, only_twin, rows)
