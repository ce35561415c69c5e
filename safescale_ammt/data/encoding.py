"""Encodings: piecewise-linear numbers and one-hot levels, learnt on train only.

Numbers are cut at quantiles of train. A zero-inflated column also has an indicator
for every frequent value: on Adult's capital gain single values decide the label. How
a row becomes inputs is said in `coding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.data.feature_codes import Floats, date_parts
from safescale_ammt.data.moments import mean_and_spread
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    NumericFeature,
)
from safescale_ammt.reading.columns import Column

ZERO_INFLATED = 0.5
"""A column whose most frequent value has over half of the rows."""
SPIKE_SHARE = 0.0005
"""Least share of train rows that makes a value of such a column frequent."""
MOST_SPIKES = 64
"""Most frequent values that get an indicator."""
LEAST_ROWS = 10
"""Least rows that a spike or an own level of a large train split has."""
LEAST_EXPECTED = 0.05
"""Least share of expected unseen values that is worth a place in the schema."""


def least_rows(n: int) -> int:
    """Least train rows of a spike or level: 10, fewer in small data, 2 at least."""
    return max(2, min(LEAST_ROWS, n // 1000))


def learn_numeric(
    name: str, values: Floats, bins: int, weights: NDArray[np.int64] | None = None
) -> NumericFeature:
    """Learns one numeric column of the train split.

    Args:
        name: column name.
        values: (n,), NaN where missing.
        bins: number of quantile edges, at most.
        weights: int64 (n,), the rows of each value; None = one each.
    """
    order = np.argsort(values)[: len(values) - np.count_nonzero(np.isnan(values))]
    # Sorted, so that mean and standard deviation are sums in one order, whatever the
    # order of the rows.
    present = values[order]
    if weights is not None:
        present = np.repeat(present, weights[order])
    rows = len(values) if weights is None else int(weights.sum())
    if not len(present):
        return NumericFeature(name, rows > 0, 0.0, 0.0, 1.0, (), ())
    starts = np.flatnonzero(np.append(True, present[1:] != present[:-1]))
    distinct, counts = present[starts], np.diff(np.append(starts, len(present)))
    commonest = int(np.argmax(counts))
    spikes: Floats = np.zeros(0)
    spread = present
    if counts.max() > ZERO_INFLATED * len(present) and len(distinct) > 2:
        least = max(least_rows(len(present)), SPIKE_SHARE * len(present))
        frequent = np.argsort(-counts, kind="stable")[:MOST_SPIKES]
        spikes = np.sort(distinct[frequent[counts[frequent] >= least]])
        # The mode counts once: with all its rows, over half of the quantiles would
        # coincide with it and leave the other values few edges.
        start = starts[commonest]
        end = start + counts[commonest]
        spread = np.concatenate([present[: start + 1], present[end:]])
    edges = np.unique(sorted_quantiles(spread, np.linspace(0, 1, bins)))
    mean, deviation = mean_and_spread(present)
    return NumericFeature(
        name=name,
        has_missing=len(present) < rows,
        median=float(present[(len(present) - 1) // 2 : len(present) // 2 + 1].mean()),
        mean=mean,
        std=deviation or 1.0,
        # One edge makes no piece: a constant column has its indicators alone.
        edges=tuple(edges.tolist()) if len(edges) > 1 else (),
        spikes=tuple(spikes.tolist()),
    )


def sorted_quantiles(values: Floats, shares: Floats) -> Floats:
    """Returns `np.quantile(values, shares)` of sorted values, without another copy."""
    place = (len(values) - 1) * shares
    below = np.floor(place).astype(np.int64)
    share = place - below
    low, high = values[below], values[np.minimum(below + 1, len(values) - 1)]
    # From the nearer end, as numpy interpolates.
    return np.where(
        share >= 0.5, high - (high - low) * (1 - share), low + (high - low) * share
    )


def learn_categorical(
    name: str, column: Column, missing: Sequence[str], most: int
) -> CategoricalFeature:
    """Learns one categorical column of the train split.

    Args:
        name: column name.
        column: the train rows' texts.
        missing: spellings of a missing value.
        most: number of levels with an own indicator, at most.
    """
    absent = column.among(missing)
    texts, codes = column.ranked()
    weights = None if column.weights is None else column.weights[~absent]
    counts = np.bincount(codes[~absent], weights, minlength=len(texts)).astype(np.int64)
    rows = column.rows(np.ones(len(column), np.bool_))
    present = np.flatnonzero(counts)
    # Ties go to the level that sorts first: the same data, the same levels.
    by_count = present[np.argsort(-counts[present], kind="stable")]
    own = [i for i in by_count[:most] if counts[i] >= least_rows(rows)]
    # Pooling makes rare levels alike; their frequency tells some of them apart again.
    wide = len(present) > most
    scale = np.log1p(rows)
    # Good and Turing: a new row has a value never seen about as often as a train row
    # has one that no other row has. Where only own levels are known by name, a pooled
    # value looks unseen too.
    strange = counts[present] == 1 if wide else ~np.isin(present, own)
    expected = counts[present][strange].sum() / max(counts[present].sum(), 1)
    return CategoricalFeature(
        name=name,
        has_missing=bool(absent.any()),
        levels=tuple(sorted(texts[i] for i in own)),
        pooled=len(own) < len(present),
        frequency={
            texts[i]: float(np.log1p(counts[i]) / scale) for i in present if wide
        },
        expected_unseen=float(expected) if expected >= LEAST_EXPECTED else 0.0,
    )


def learn_date(
    name: str,
    times: pa.TimestampArray,
    zoned: bool,
    bins: int,
    most: int,
    *,
    weights: NDArray[np.int64],
) -> DateFeature:
    """Learns one column of dates of the train split, part by part.

    Args:
        name: column name.
        times: (n,), null where missing.
        zoned: whether they are instants.
        bins: number of quantile edges of a numeric part, at most.
        most: number of levels of a categorical part, at most.
        weights: int64 (n,), the rows of each time.
    """
    parts: list[NumericFeature | CategoricalFeature] = []
    known = times.is_valid().to_numpy(zero_copy_only=False)
    for part, values in date_parts(times).items():
        # One indicator of a missing date is enough; it is that of `elapsed`.
        used = np.ones(len(known), np.bool_) if part == "elapsed" else known
        present, rows = values.filter(pa.array(used)), weights[used]
        if pa.types.is_floating(values.type):
            numbers = present.to_numpy(zero_copy_only=False)
            learnt = learn_numeric(part, numbers, bins, rows)
            parts += [learnt] if part == "elapsed" or learnt.edges else []
        elif len(pc.unique(present)) > 1:
            column = replace(Column.of(pa.chunked_array([present])), weights=rows)
            parts.append(learn_categorical(part, column, (), most))
    return DateFeature(name, zoned, tuple(parts))
