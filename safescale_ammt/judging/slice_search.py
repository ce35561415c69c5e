"""The search for slices: conditions on raw columns under which a model errs more.

Every slice of one or two conditions is counted: a table of two columns' codes has the
rows and errors of all pairs of their conditions, so that a candidate costs no pass
over the rows (exhaustive subgroup discovery; "Slice Finder" of Chung et al. 2019 and
"SliceLine" of Sagadeeva & Boehm 2021 search the same lattice). Slices are taken one at
a time:

    score      deviance of a slice's errors from those expected, in nats, less the log
               of how many slices of as many conditions there are: a second condition
               has to pay for itself
    taken      the greatest score; whatever overlaps with it by a Jaccard index of
               `OVERLAP` or more is of its cluster and is not looked at again
    expected   errors by a logistic model of the slices taken so far: the next slice
               tells what they do not (as weighted covering does: Lavrač et al. 2004)

Weights of rows are whole numbers below 2^53 in sum: no order of addition shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit, log_expit, xlogy

from safescale_ammt.data.condition import Condition
from safescale_ammt.data.conditions import Axis, axes_of

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
OVERLAP = 0.5
"""Jaccard index of rows from which two slices are of one cluster."""
BINS = (20, 14, 10, 7, 5)
"""Quantile bins of a number: as many as leave no more than `MOST_CONDITIONS`."""
MOST_CONDITIONS = 1200
"""Conditions whose pairs are counted; of more, those of the columns that tell most."""
LEAST_GAIN = -5.0
"""Score below which a slice is not worth a test: chance gives many such."""
_GRID = 1 << 20
_RIDGE = 1.0
_NEWTON_STEPS, _HALVES = 12, 20
_LEAST_SPREAD, _ROUNDING = 1e-12, 1e-12


class Lattice:
    """All slices of one or two conditions, as a square table.

    The single ones lie on its diagonal, pairs above it.

    Args:
        axes: the columns.
        pairs: whether two conditions are counted together.
    """

    def __init__(self, axes: Sequence[Axis], *, pairs: bool) -> None:
        self.conditions = [c for axis in axes for c in axis.conditions]
        self._codes = [axis.codes for axis in axes]
        self._widths = [axis.spans.shape[1] for axis in axes]
        self._starts = np.cumsum([0, *self._widths])
        self._pairs = list(combinations(range(len(axes)), 2)) if pairs else []
        self._spans = np.zeros((len(self.conditions), self._starts[-1]))
        of, at = np.zeros(len(self.conditions), int), 0
        for i, axis in enumerate(axes):
            own = slice(at, at := at + len(axis.conditions))
            of[own] = i
            self._spans[own, self._starts[i] : self._starts[i + 1]] = axis.spans
        apart = (of[:, None] < of) & bool(pairs)
        self.single = np.eye(len(of), dtype=bool)
        self.places = apart | self.single

    def sums(self, weights: Floats, rows: Mask | None = None) -> Floats:
        """Returns the sum of weights (n,), over some rows, within each slice."""
        codes = self._codes
        if rows is not None:
            weights, codes = weights[rows], [own[rows] for own in codes]
        table = np.zeros((self._starts[-1],) * 2)
        for i, own in enumerate(codes):
            at = slice(self._starts[i], self._starts[i + 1])
            counted = np.bincount(own, weights, self._widths[i])
            table[at, at] = np.diag(counted)
        for i, j in self._pairs:
            size = self._widths[i] * self._widths[j]
            joint = np.bincount(codes[i] * self._widths[j] + codes[j], weights, size)
            at = slice(self._starts[i], self._starts[i + 1])
            beside = slice(self._starts[j], self._starts[j + 1])
            table[at, beside] = joint.reshape(self._widths[i], self._widths[j])
        found: Floats = self._spans @ table @ self._spans.T
        return found

    def rows(self, i: int, j: int) -> Mask:
        """Returns the rows of the slice at a place of the table (n,)."""
        inside = np.ones(len(self._codes[0]), bool)
        for condition in {i, j}:
            axis = int(np.flatnonzero(self._spans[condition])[0])
            axis = int(np.searchsorted(self._starts, axis, side="right")) - 1
            span = self._spans[condition, self._starts[axis] : self._starts[axis + 1]]
            inside &= span.astype(bool)[self._codes[axis]]
        return inside


def discover(
    features: pa.Table, errors: Mask, *, most: int, conditions: int, least: int
) -> list[tuple[Condition, ...]]:
    """Returns at most so many slices in which a model errs more than elsewhere.

    Args:
        features: raw columns of n rows.
        errors: which of them the model gets wrong (n,).
        most: slices that are returned, one of each cluster.
        conditions: most conditions of a slice, 1 or 2.
        least: rows that lie inside of a slice, and outside.
    """
    rows, wrong = len(errors), int(errors.sum())
    if not most or not 0 < wrong < rows:
        return []
    axes = counted_axes(features, errors, least)
    if not axes:
        return []
    lattice = Lattice(axes, pairs=conditions > 1)
    size, hits = lattice.sums(np.ones(rows)), lattice.sums(errors.astype(float))
    # Of one slice the test compares its rate with that of all other rows.
    open_ = lattice.places & (size >= least) & (rows - size >= least)
    open_ &= hits * rows > size * wrong
    kinds = (lattice.single & open_, ~lattice.single & open_)
    price = sum(kind * np.log(max(kind.sum(), 1)) for kind in kinds)
    expected, taken = np.full(rows, wrong / rows), list[tuple[int, int]]()
    inside: list[Mask] = []
    while len(taken) < most and open_.any():
        # On a grid sums are exact, whatever the order of the rows.
        e = lattice.sums(np.rint(expected * _GRID)) / _GRID
        score = np.where(open_, deviance(hits, e, size) - price, -np.inf)
        i, j = (int(at) for at in np.unravel_index(score.argmax(), score.shape))
        if score[i, j] < LEAST_GAIN:
            break
        taken.append((i, j))
        inside.append(lattice.rows(i, j))
        # What lies mostly in a slice that is taken is the same finding again.
        both = lattice.sums(np.ones(rows), inside[-1])
        open_ &= both < OVERLAP * (size + inside[-1].sum() - both)
        expected = fitted(errors, inside)
    return [
        tuple(lattice.conditions[at] for at in dict.fromkeys(place)) for place in taken
    ]


def deviance(hits: Floats, expected: Floats, size: Floats) -> Floats:
    """Returns by how many nats errors beyond those expected are told, 0 of fewer."""
    with np.errstate(divide="ignore", invalid="ignore"):
        rest = xlogy(size - hits, (size - hits) / (size - expected))
        found = xlogy(hits, hits / expected) + rest
    return np.where(hits > expected, found, 0.0)


def fitted(errors: Mask, inside: Sequence[Mask]) -> Floats:
    """Returns each row's chance of an error (n,), by the slices that it lies in.

    A logistic regression by Newton's steps; the ridge bounds what few rows say. Where
    slices hold every error, a whole step may go too far to come back from: a step is
    halved until it loses nothing.
    """
    design = np.column_stack([np.ones(len(errors)), *inside]).astype(float)
    ridge = np.diag([0.0, *[_RIDGE] * len(inside)])
    weight = np.zeros(design.shape[1])
    share = errors.mean()
    weight[0] = np.log(share / (1 - share))
    signs = np.where(errors, 1.0, -1.0)

    def gain(at: Floats) -> float:
        return float(log_expit(signs * (design @ at)).sum() - at @ ridge @ at / 2)

    for _ in range(_NEWTON_STEPS):
        chance = expit(design @ weight)
        slope = design.T @ (errors - chance) - ridge @ weight
        spread = np.maximum(chance * (1 - chance), _LEAST_SPREAD)
        step = np.linalg.solve((design.T * spread) @ design + ridge, slope)
        least = gain(weight) - _ROUNDING * len(errors)
        halves = (step / 2**k for k in range(_HALVES))
        weight = next((weight + s for s in halves if gain(weight + s) >= least), weight)
    found: Floats = expit(design @ weight)
    return found


def counted_axes(features: pa.Table, errors: Mask, least: int) -> list[Axis]:
    """Returns the columns whose conditions are counted, in their order.

    All of them in as fine bins as can be; of too many the ones with the strongest
    single conditions. The arguments are those of `discover`.
    """
    # Coarser bins find ranges less exactly, but every column has its say.
    for bins in BINS:
        axes = [*axes_of(features, bins, least)]
        if sum(len(axis.conditions) for axis in axes) <= MOST_CONDITIONS:
            return axes
    told, share = list[float](), errors.mean()
    for axis in axes:
        single = Lattice([axis], pairs=False)
        size = np.diag(single.sums(np.ones(len(errors))))
        hits = np.diag(single.sums(errors.astype(float)))
        told.append(float(deviance(hits, size * share, size).max()))
    kept, room = set[int](), MOST_CONDITIONS
    for i in np.argsort(-np.array(told), kind="stable").tolist():
        if (room := room - len(axes[i].conditions)) < 0:
            break
        kept.add(i)
    return [axis for i, axis in enumerate(axes) if i in kept]
