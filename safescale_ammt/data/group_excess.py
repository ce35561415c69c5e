"""Whether something happens more in one group than in the others, and by how much more.

Marks on rows (a label that is not the trusted one, a repeat that is not the first
value) are compared between the values of a group *within strata*, such as the true
class: a group with more rows of the class that is harder to label has more errors and
no more than its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safescale_ammt.binomial.two_rates import miettinen_nurminen

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]
View = Sequence[Floats | None]
"""Scores (levels,) of each stratum that one look at the tables adds up; None = not."""
MOST_CELLS = 1 << 22
"""Cells of tables that are held at once."""
# A draw may give the very table that was observed, summed in another order.
_ROUNDING = 1e-9


def tables_of(strata: Codes, values: Codes, levels: Codes) -> list[Codes]:
    """Counts rows by group value and level, a table (values, levels) for each stratum.

    All tables have as many rows as there are values, and two levels at least; strata
    without a row have no table.
    """
    sizes = [int(codes.max(initial=0)) + 1 for codes in (strata, values, levels)]
    shape = (*sizes[:2], max(sizes[2], 2))
    cell = np.ravel_multi_index((strata, values, levels), shape)
    counts = np.bincount(cell, minlength=int(np.prod(shape))).reshape(shape)
    return [table for table in counts if table.sum()]


def excess_p_values(
    tables: Sequence[Codes], views: Sequence[View], draws: int, seed: int
) -> Floats:
    """Tests for every value whether its rows score more than the others'.

    Under the null, rows of one stratum are exchangeable between values: tables with the
    observed margins are drawn. A score's sum T of n
    rows with mean E and variance V under the null counts by its deviance
    (E / V) (T log(T / E) - T + E) above E, about minus the log of a Poisson's tail, so
    that groups of 10 and of 10,000 rows are held to one measure; the greatest of all
    values and views is compared with the draws' greatest (single-step max-T, Westfall
    and Young 1993). Exact at any level, the observed tables being one of the draws.

    Args:
        tables: of each stratum (values, levels).
        views: what is added up; scores are not negative.
        draws: from the null.
        seed: of the draws.

    Returns:
        A family-wise p-value (values,) for "more than the others".
    """
    rng, cells = np.random.default_rng(seed), sum(table.size for table in tables)
    observed = greatest_deviances(tables, [table[None] for table in tables], views)[0]
    above, left = np.ones(len(tables[0]), np.int64), draws
    while left:
        # So many at once that a wide group of many strata fits in memory too.
        some = min(left, max(1, MOST_CELLS // cells))
        samples = [drawn_tables(table, some, rng) for table in tables]
        greatest = greatest_deviances(tables, samples, views).max(axis=1)
        above += (greatest[:, None] >= observed - _ROUNDING).sum(axis=0)
        left -= some
    return np.asarray(above / (1 + draws))


def drawn_tables(table: Codes, draws: int, rng: np.random.Generator) -> Codes:
    """Draws tables with the margins of one, as rows that change places would give them.

    Cell by cell, each hypergeometric given those before it.

    Args:
        table: counts (values, levels).
        draws: tables to draw.
        rng: of the draws.

    Returns:
        The tables (draws, values, levels).
    """
    left = np.tile(table.sum(axis=0), (draws, 1))
    found = np.empty((draws, *table.shape), np.int64)
    for i, size in enumerate(table.sum(axis=1)[:-1]):
        wanted, rest = np.full(draws, size), left.sum(axis=1)
        for j in range(table.shape[1] - 1):
            rest = rest - left[:, j]
            found[:, i, j] = rng.hypergeometric(left[:, j], rest, wanted)
            wanted = wanted - found[:, i, j]
        found[:, i, -1] = wanted
        left = left - found[:, i]
    found[:, -1] = left
    return found


def greatest_deviances(
    tables: Sequence[Codes], samples: Sequence[NDArray[Any]], views: Sequence[View]
) -> Floats:
    """Returns the greatest deviance (draws, values) of all views.

    Args:
        tables: of each stratum (values, levels), which fix the margins.
        samples: of each stratum (draws, values, levels).
        views: what is added up.
    """
    most = np.zeros((len(samples[0]), len(tables[0])))
    for view in views:
        total, mean, variance = np.zeros_like(most), most[0] * 0, most[0] * 0
        for table, sample, scores in zip(tables, samples, view, strict=True):
            if scores is not None:
                total = total + sample @ scores
                e, v = moments(table, scores)
                mean, variance = mean + e, variance + v
        most = np.maximum(most, deviances(total, mean, variance))
    return most


def moments(table: Codes, scores: Floats) -> tuple[Floats, Floats]:
    """Mean and variance (values,) of sums of scores over rows drawn without return."""
    n, rows = table.sum(axis=1), table.sum(axis=0)
    whole = max(int(rows.sum()), 2)
    mean = float(rows @ scores) / whole
    spread = float(rows @ (scores - mean) ** 2) / (whole - 1)
    return n * mean, n * (whole - n) / whole * spread


def deviances(total: Floats, mean: Floats, variance: Floats) -> Floats:
    """Returns how far sums lie above their means; 0 below, or where nothing varies."""
    moves = (variance > _ROUNDING) & (mean > 0)
    e, v = np.where(moves, mean, 1.0), np.where(moves, variance, 1.0)
    ratio = np.maximum(total / e, 1.0)
    return np.where(moves, e * e / v * (ratio * np.log(ratio) - ratio + 1), 0.0)


def excess_rates(
    tables: Sequence[Codes], alpha: float
) -> list[tuple[float, float, float]]:
    """Measures how much more often the rows of each value are marked than the others'.

    The difference of rates within each stratum, weighed by the value's own rows; its
    interval is that of a sum of differences with score intervals (MOVER: Zou and Donner
    2008, Stat. Med. 27:1693). Strata that the others have no row of are left out.

    Args:
        tables: of each stratum (values, 2): rows without a mark, and with one.
        alpha: one-sided error of each bound.

    Returns:
        (difference, lower, upper) of each value; (0, -1, 1) if nothing is comparable.
    """
    found = []
    for value in range(len(tables[0])):
        parts = []
        for table in tables:
            mine, others = table[value], table.sum(axis=0) - table[value]
            if mine.sum() and others.sum():
                x1, n1, x0, n0 = (
                    *(int(mine[1]), int(mine.sum())),
                    *(int(others[1]), int(others.sum())),
                )
                bounds = miettinen_nurminen(x1, n1, x0, n0, alpha)
                parts.append((n1, x1 / n1 - x0 / n0, *bounds))
        found.append(summed(np.array(parts)) if parts else (0.0, -1.0, 1.0))
    return found


def summed(parts: Floats) -> tuple[float, float, float]:
    """Adds up differences of strata (rows, difference, lower, upper) by their rows."""
    weight = parts[:, 0] / parts[:, 0].sum()
    middle, low, high = parts[:, 1:].T
    difference = float(weight @ middle)
    below = float(np.sqrt(((weight * (middle - low)) ** 2).sum()))
    above = float(np.sqrt(((weight * (high - middle)) ** 2).sum()))
    return difference, max(-1.0, difference - below), min(1.0, difference + above)
