"""Laws of the measures of use: precision, recall, balanced accuracy, AUC, gain.

A model is assumed to make `ASSUMED_SHARE` of the errors that its line allows (the
scale takes that place in the table of true gaps), in each class alike; to answer
positive as often as the class occurs; and scores whose AUC varies as those of two
exponential laws do (Hanley and McNeil 1982, Radiology 143:29).
"""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from safescale_ammt.constitution.principles import Constraint
from safescale_ammt.judging.certify import PairedHits, line_at
from safescale_ammt.judging.power.sizes import Sizes
from safescale_ammt.judging.skill import RATES, MeanHits, SkillHits, TwoClassHits

ASSUMED_SHARE = 0.75
"""Errors of a model, as a share of what its line allows."""


def draw_skill(
    constraint: Constraint,
    sizes: Sizes,
    scale: float | None,
    draws: int,
    rng: Generator,
) -> PairedHits | SkillHits:
    """Draws what the sealed rows may show; see `laws.draw` for the arguments."""
    share = ASSUMED_SHARE if scale is None else scale
    right = 1 - min(1.0, share * (1 - line_at(constraint)))
    positives = int(sizes.labels[sizes.positive])
    negatives = int(sizes.labels.sum()) - positives
    if constraint.metric in RATES:
        hits = rng.binomial(positives, np.full(draws, right))
        return PairedHits(hits, *(np.zeros_like(hits),) * 2, positives)
    if constraint.metric == "auc":
        value = rng.normal(right, auc_error(right, positives, negatives), draws)
        return MeanHits(np.clip(value, 0, 1), min(positives, negatives))
    if len(sizes.labels) > 2:
        rows = np.maximum(sizes.labels, 1)
        recalls = rng.binomial(rows, right, (draws, len(rows))) / rows
        return MeanHits(recalls.mean(axis=1), int(sizes.labels.min()))
    found = rng.binomial(positives, np.full(draws, right))
    alarms = rng.binomial(negatives, np.full(draws, 1 - right))
    return TwoClassHits(found, alarms, positives, negatives)


def draw_against_constant(
    constraint: Constraint,
    sizes: Sizes,
    scale: float | None,
    draws: int,
    rng: Generator,
) -> PairedHits:
    """Draws a model and the constant of the largest class, its errors half there."""
    share = ASSUMED_SHARE if scale is None else scale
    rest = sizes.beyond_constant
    errors = min(1.0, share * max(0.0, rest - (constraint.delta or 0.0)))
    # Of the rows beyond the constant those that the model gets right are its gain.
    gain = rest - min(rest, errors / 2)
    loss = errors - min(rest, errors / 2)
    cells = [gain, loss, max(0.0, 1 - gain - loss)]
    only_model, only_constant, _ = rng.multinomial(sizes.rows, cells, draws).T
    line = constraint.floor
    floor_errors = 0.0 if line is None else ASSUMED_SHARE * (1 - line)
    correct = rng.binomial(sizes.rows, np.full(draws, 1 - floor_errors))
    return PairedHits(correct, only_model, only_constant, sizes.rows)


def auc_error(right: float, positives: int, negatives: int) -> float:
    """Standard error of a measured AUC (Hanley and McNeil 1982, eq. 1)."""
    n1, n0 = max(1, positives), max(1, negatives)
    q1, q2 = right / (2 - right), 2 * right**2 / (1 + right)
    variance = right * (1 - right)
    variance += (n1 - 1) * (q1 - right**2) + (n0 - 1) * (q2 - right**2)
    return float(np.sqrt(max(0.0, variance) / (n1 * n0)))
