"""Conditions on raw columns: the rows they hold in, the codes that a search counts by.

What rows a condition holds in depends on each row alone: it is learnt of one table
and asked of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.data.associations import (
    Codes,
    bin_codes,
    edges_of,
    levels,
    numbers_of,
)
from safescale_ammt.data.condition import Condition
from safescale_ammt.data.counts import LEAST_SHOWN
from safescale_ammt.errors import IntegrityError

MOST_TEXTS = 50
"""Texts of a column that can be asked for: the most frequent ones."""


def holds(condition: Condition, features: pa.Table) -> NDArray[np.bool_]:
    """Returns the rows of raw features in which a condition holds (n,).

    Raises:
        IntegrityError: the column is not there, or of another kind.
    """
    if condition.column not in features.column_names:
        raise IntegrityError(
            f"A slice asks of column {condition.column!r}, which the rows do not have."
        )
    column = features[condition.column]
    if condition.value is not None:
        same = pc.equal(pc.cast(column, pa.string()), condition.value)
        return np.asarray(pc.fill_null(same, False).to_numpy())
    if condition.above is None and condition.up_to is None:
        return np.asarray(pc.is_null(column, nan_is_null=True).to_numpy())
    if (x := numbers_of(column)) is None:
        raise IntegrityError(
            f"A slice asks for a range of column {condition.column!r}, which is text."
        )
    # A comparison with NaN, a missing number, is false.
    low = -np.inf if condition.above is None else condition.above
    high = np.inf if condition.up_to is None else condition.up_to
    return np.asarray((x > low) & (x <= high))


@dataclass(frozen=True)
class Axis:
    """One column as a search counts it.

    Attributes:
        codes: of rows (n,), 0 .. k-1.
        conditions: what can be asked of it.
        spans: which codes each condition holds in (conditions, k).
    """

    codes: Codes
    conditions: tuple[Condition, ...]
    spans: NDArray[np.bool_]


def axes_of(features: pa.Table, bins: int, least: int) -> Iterator[Axis]:
    """Yields each column that something can be asked of.

    Args:
        features: raw columns, as `data.dataset.Split` has them.
        bins: quantile bins of a number.
        least: rows in which a condition holds.
    """
    for name in features.column_names:
        column = features[name]
        x = numbers_of(column)
        codes, asked = (
            texts_asked(name, column) if x is None else ranges_asked(name, column, bins)
        )
        counts, spans = np.bincount(codes), list[NDArray[np.bool_]]()
        conditions = list[Condition]()
        for condition, (first, end) in asked:
            span = np.zeros(len(counts), np.bool_)
            span[first : end + 1] = True
            # A text that few have is never told: it may name one of them.
            if counts[span].sum() >= max(least, LEAST_SHOWN):
                conditions.append(condition)
                spans.append(span)
        if conditions:
            yield Axis(codes, tuple(conditions), np.array(spans))


Asked = tuple[Condition, tuple[int, int]]
"""A condition with the first and the last code that it holds in."""


def texts_asked(name: str, column: pa.ChunkedArray) -> tuple[Codes, list[Asked]]:
    """Returns codes of texts (n,), and what can be asked of them."""
    codes = levels(pc.cast(column, pa.string()), MOST_TEXTS)
    _, first = np.unique(codes, return_index=True)
    values = column.take(pa.array(first[:MOST_TEXTS])).to_pylist()
    return codes, [(Condition(name, v), (i, i)) for i, v in enumerate(values)]


def ranges_asked(
    name: str, column: pa.ChunkedArray, bins: int
) -> tuple[Codes, list[Asked]]:
    """Returns bins of numbers or dates (n,), and what can be asked of them."""
    x = numbers_of(column)
    assert x is not None
    date = pa.types.is_timestamp(column.type)
    # Where one value is most of a column, all quantiles may be that value: what is left
    # without such values has quantiles too.
    values, counts = np.unique(x[~np.isnan(x)], return_counts=True)
    rare = x[~np.isin(x, values[counts * bins > len(x)])]
    edges = np.unique(np.concatenate([edges_of(x, bins), edges_of(rare, bins)]))
    codes, last = bin_codes(x, edges), len(edges) + 1
    asked: list[Asked] = [(Condition(name), (0, 0))]
    for first, end in combinations_with_replacement(range(1, last + 1), 2):
        above = None if first == 1 else float(edges[first - 2])
        up_to = None if end == last else float(edges[end - 1])
        if above is not None or up_to is not None:
            asked.append((Condition(name, None, above, up_to, date), (first, end)))
    return codes, asked
