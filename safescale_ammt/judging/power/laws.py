"""Laws that hits are drawn from before there is any model.

All that is known are counts. What a model's rates will be is assumed, and the
assumptions are written down with the answer:

    true positive rate     .6, whose variance is within 4 % of the largest one
    selection rate         the base rate of the class in train and constraint
    false positive rate    what follows from the two: base (1 - .6) / (1 - base)
    errors (accuracy, worst group)    three quarters of what the line allows
    model against twin     3 % of the rows answered differently

At a *true gap* of gamma the groups, from the smallest to the largest, lie in turn
gamma / 2 below and above the assumed rate. Under the *spread* law each group's
true rate is normal around the assumed one with variance p (1 - p) / m: training
aims at equal rates, but knows them only from the m rows of train and constraint
that its multipliers see (cross-fitted, so that all of them count).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from safescale_ammt.binomial.exact import Array
from safescale_ammt.constitution.constitution import GroupRule
from safescale_ammt.constitution.principles import Constraint
from safescale_ammt.data.counts import Counts
from safescale_ammt.judging.certify import Counted, GroupHits, PairedHits, line_at
from safescale_ammt.judging.evidence import IntArray
from safescale_ammt.judging.group_rates import RATES_OF, GroupTable, Rates

SEALED = "sealed"
DUAL = ("train", "constraint")
"""Splits whose rows drive the multipliers."""
ASSUMED_TPR = 0.6
ASSUMED_SHARE = 0.75
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


@dataclass(frozen=True)
class Scene:
    """The sizes at which one principle will be judged.

    Attributes:
        values: group values (g,); empty for accuracy.
        sizes: sealed rows of each group (g,).
        kinds: names of the rates compared.
        trials: sealed trials per kind (k, g).
        dual: trials in train and constraint per kind (k, g).
        base: assumed rate per kind (k,).
        small: groups (g,) too small to be judged.
        rows: sealed rows.
    """

    values: tuple[str, ...]
    sizes: IntArray
    kinds: tuple[str, ...]
    trials: IntArray
    dual: IntArray
    base: Array
    small: NDArray[np.bool_]
    rows: int

    def larger(self, factor: float, *, everywhere: bool = False) -> Scene:
        """The same scene with more sealed rows (and development rows, if so)."""
        return replace(
            self,
            sizes=np.ceil(self.sizes * factor).astype(np.int64),
            trials=np.ceil(self.trials * factor).astype(np.int64),
            dual=np.ceil(self.dual * (factor if everywhere else 1)).astype(np.int64),
            rows=int(np.ceil(self.rows * factor)),
        )


def scene(constraint: Constraint, counts: Counts, rule: GroupRule) -> Scene:
    """Reads the sizes of a principle from the counts.

    Raises:
        InputError: the counts lack a split or the principle's group.
    """
    total = counts.split(SEALED).rows
    if constraint.metric not in RATES_OF:
        none, small = np.zeros((0, 0), dtype=np.int64), np.zeros(0, dtype=bool)
        return Scene((), none.ravel(), (), none, none, np.zeros(0), small, total)
    values, rows, labels = counts.table(SEALED, constraint.group or "")
    dual_rows, dual_labels = _dual(counts, constraint.group or "", values)
    wanted = [
        (kind, code)
        for kind in RATES_OF[constraint.metric]
        for code in (_classes(counts) if kind != "error" else (0,))
    ]
    trials = [_trials(kind, rows, labels[:, code]) for kind, code in wanted]
    share = dual_labels.sum(axis=0) / max(1, int(dual_rows.sum()))
    classes = _classes(counts)
    # The judge's own rule says which groups are too small.
    table = GroupTable(
        values,
        rows,
        labels[:, classes[0]] if len(classes) == 1 else rows,
        tuple(Rates("", np.zeros_like(t), t) for t in trials),
    )
    return Scene(
        values=values,
        sizes=rows,
        kinds=tuple(f"{kind} of class {code}" for kind, code in wanted),
        trials=np.array(trials),
        dual=np.array([_trials(k, dual_rows, dual_labels[:, c]) for k, c in wanted]),
        base=np.array([_assumed(kind, float(share[code])) for kind, code in wanted]),
        small=table.too_small(rule.min_n, rule.min_pos),
        rows=total,
    )


def _classes(counts: Counts) -> tuple[int, ...]:
    if counts.positive:
        return (counts.classes.index(counts.positive),)
    return (1,) if len(counts.classes) == 2 else tuple(range(len(counts.classes)))


def _dual(
    counts: Counts, group: str, values: tuple[str, ...]
) -> tuple[IntArray, IntArray]:
    """Rows (g,) and rows per class (g, C) behind the multipliers, in sealed order."""
    rows = np.zeros(len(values), dtype=np.int64)
    labels = np.zeros((len(values), len(counts.classes)), dtype=np.int64)
    for split in DUAL:
        names, split_rows, split_labels = counts.table(split, group)
        for i, value in enumerate(values):
            if value in names:
                rows[i] += split_rows[names.index(value)]
                labels[i] += split_labels[names.index(value)]
    return rows, labels


def _trials(kind: str, rows: IntArray, of_class: IntArray) -> IntArray:
    if kind == "tpr":
        return of_class
    return rows - of_class if kind == "fpr" else rows


def _assumed(kind: str, share: float) -> float:
    if kind == "tpr":
        return ASSUMED_TPR
    if kind == "selection":
        return share
    wrong = share * (1 - ASSUMED_TPR) / max(1 - share, 1e-9)
    return min(0.5, wrong) if kind == "fpr" else 0.0


def draw(
    constraint: Constraint,
    place: Scene,
    scale: float | None,
    draws: int,
    rng: Generator,
) -> Counted:
    """Draws what the sealed rows may show.

    Args:
        constraint: the principle's constraint.
        place: the sizes.
        scale: true gap as a multiple of the tolerance; None: the spread law.
        draws: number of draws.
        rng: source of randomness.

    Returns:
        Hits with one leading axis (draws,).
    """
    if constraint.metric == "accuracy":
        return _draw_pair(constraint, place.rows, scale, draws, rng)
    rates = []
    for k, kind in enumerate(place.kinds):
        p = _true_rates(constraint, place, k, scale)
        if scale is None and constraint.metric in PAIRWISE:
            error = np.sqrt(p * (1 - p) / np.maximum(place.dual[k], 1))
            p = np.clip(rng.normal(p, error, (draws, len(p))), 0.0, 1.0)
        hits = rng.binomial(place.trials[k], p, (draws, len(place.values)))
        rates.append(Rates(kind, hits, place.trials[k]))
    return GroupHits(tuple(rates), place.small)


def _true_rates(
    constraint: Constraint, place: Scene, kind: int, scale: float | None
) -> Array:
    """Rates (g,) that the groups truly have; under the spread law, aim at."""
    groups = len(place.values)
    if constraint.metric not in PAIRWISE:
        share = ASSUMED_SHARE if scale is None else scale
        return np.full(groups, min(1.0, share * line_at(constraint)))
    low, high = _apart(constraint, float(place.base[kind]), scale or 0.0)
    rank = np.argsort(np.argsort(place.trials[kind], kind="stable"), kind="stable")
    return np.where(rank % 2 == 0, low, high)


def _apart(constraint: Constraint, base: float, scale: float) -> tuple[float, float]:
    """Two rates around the base whose gap is `scale` times the tolerance."""
    if constraint.metric == "dp_ratio":
        ratio = max(0.0, 1 - scale * (1 - line_at(constraint)))
        high = min(1.0, 2 * base / (1 + ratio))
        return ratio * high, high
    gap = min(1.0, scale * line_at(constraint))
    low = min(max(0.0, base - gap / 2), 1 - gap)
    return low, low + gap


def _draw_pair(
    constraint: Constraint, rows: int, scale: float | None, draws: int, rng: Generator
) -> PairedHits:
    """Right answers, and rows that only one of model and twin gets right."""
    twin = constraint.reference is not None
    line = constraint.floor if twin else constraint.threshold
    share = ASSUMED_SHARE if scale is None or twin else scale
    errors = 0.0 if line is None else min(1.0, share * (1 - line))
    correct = rng.binomial(rows, np.full(draws, 1 - errors))
    if not twin:
        none = np.zeros_like(correct)
        return PairedHits(correct, none, none, rows)
    behind = min(1.0, (scale or 0.0) * -(constraint.delta or 0.0))
    differ = max(ASSUMED_DISCORDANCE, behind)
    cells = [(differ - behind) / 2, (differ + behind) / 2, 1 - differ]
    only_model, only_twin, _ = rng.multinomial(rows, cells, draws).T
    return PairedHits(correct, only_model, only_twin, rows)
