"""Model inputs: piecewise-linear numbers, one-hot levels, learnt on train only.

Numbers follow Gorishniy, Rubachev & Babenko, "On Embeddings for Numerical
Features in Tabular Deep Learning" (NeurIPS 2022), eq. 1, with quantile edges:
component t of x is clip((x - b_t) / (b_{t+1} - b_t), 0, 1). Unlike there the two
outer components are clipped too, so that an outlier cannot leave the range that
was trained on. A zero-inflated column also has an indicator for every frequent
value: on Adult's capital gain single values decide the label.

A date is its parts: days since 1970-01-01, year and hour as numbers, month and
weekday as levels.

Every entry depends on its own row alone, by operations that IEEE 754 rounds
exactly: a row encodes to the same bits in every batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    Feature,
    NumericFeature,
    Schema,
)
from safescale_ammt.errors import DataError
from safescale_ammt.reading.columns import Column

Numeric = Literal["ple", "standard"]
Floats = NDArray[np.float64]
ZERO_INFLATED = 0.5
"""A column whose most frequent value has over half of the rows."""
SPIKE_SHARE = 0.0005
"""Least share of train rows that makes a value of such a column frequent."""
MOST_SPIKES = 64
"""Most frequent values that get an indicator."""
LEAST_ROWS = 10
"""Least rows that a spike or an own level of a large train split has."""
FARTHEST = 1e6
"""Most standard deviations from the mean that a standardised number says."""
# Microseconds, the unit of times in a split.
_DAY = 86_400e6
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
    return NumericFeature(
        name=name,
        has_missing=len(present) < rows,
        median=float(present[(len(present) - 1) // 2 : len(present) // 2 + 1].mean()),
        mean=float(present.mean()),
        std=float(present.std()) or 1.0,
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


def date_parts(times: pa.TimestampArray) -> dict[str, pa.Array]:
    """Splits times into parts, each of its own row alone: float64 or text (n,).

    `elapsed` counts from a fixed day and not from one of the data: no row tells of
    another, and two datasets mean the same by it.
    """
    # Beyond the year 2255 microseconds round to the next double, by IEEE 754.
    micros = pc.cast(pc.cast(times, pa.int64()), pa.float64(), safe=False)
    days = pc.divide(micros, _DAY)
    weekdays = pc.day_of_week(times, count_from_zero=False)
    return {
        "elapsed": days,
        "year": pc.cast(pc.year(times), pa.float64()),
        "month": pc.cast(pc.month(times), pa.string()),
        "weekday": pc.cast(weekdays, pa.string()),
        "hour": pc.cast(pc.hour(times), pa.float64()),
    }


def width(schema: Schema, numeric: Numeric = "ple") -> int:
    """Returns the number of model inputs."""
    return sum(_feature_width(feature, numeric) for feature in schema.features)


def _feature_width(feature: Feature, numeric: Numeric) -> int:
    if isinstance(feature, DateFeature):
        return sum(_feature_width(part, numeric) for part in feature.parts)
    if isinstance(feature, CategoricalFeature):
        extra = feature.has_missing + feature.pooled + bool(feature.frequency)
        return len(feature.levels) + extra
    if numeric == "standard":
        return 1 + feature.has_missing
    pieces = max(len(feature.edges) - 1, 0)
    return pieces + len(feature.spikes) + feature.has_missing


def encode(
    schema: Schema, features: pa.Table, numeric: Numeric = "ple"
) -> NDArray[np.float32]:
    """Encodes raw feature columns.

    Args:
        schema: features with the encodings learnt on train.
        features: the schema's feature columns (others are ignored): float64 for
            numeric, string for categorical, timestamp for dates, null for missing.
        numeric: `ple` (piecewise linear) or `standard` ((x - mean) / std).

    Returns:
        float32 (n, `width(schema, numeric)`), C-contiguous.

    Raises:
        DataError: a feature column is missing from the table.
    """
    out = np.zeros((features.num_rows, width(schema, numeric)), np.float32)
    start = 0
    for feature in schema.features:
        if (name := feature.name) not in features.column_names:
            raise DataError(f"The rows have no column {name!r}, which the model needs.")
        stop = start + _feature_width(feature, numeric)
        encode_feature(feature, features[name], out[:, start:stop], numeric)
        start = stop
    return out


def encode_feature(
    feature: Feature,
    column: pa.ChunkedArray,
    out: NDArray[np.float32],
    numeric: Numeric,
) -> None:
    """Encodes one feature into its inputs `out` (n, its width), which hold zeros."""
    if isinstance(feature, CategoricalFeature):
        return _encode_levels(feature, column, out)
    if isinstance(feature, NumericFeature):
        return _encode_numbers(feature, column, out, numeric)
    columns, start = date_parts(column), 0
    for part in feature.parts:
        stop = start + _feature_width(part, numeric)
        encode_feature(part, columns[part.name], out[:, start:stop], numeric)
        start = stop
    return None


def _encode_numbers(
    feature: NumericFeature,
    column: pa.ChunkedArray,
    out: NDArray[np.float32],
    numeric: Numeric,
) -> None:
    """Columns: pieces t of eq. 1 (or x standardised), spikes, missing."""
    x = pc.cast(column, pa.float64()).to_numpy().astype(np.float64)
    absent = np.isnan(x)
    # The median keeps the row inside the range that was trained on; the indicator
    # tells the net that it is no measurement.
    x = np.where(absent, feature.median, x)
    if feature.has_missing:
        out[:, -1] = absent
    if numeric == "standard":
        # A row of train lies within sqrt(n) deviations; one far beyond all of them
        # would be infinite in float32, and so would what the network answers.
        with np.errstate(over="ignore"):
            z = (x - feature.mean) / feature.std
        out[:, 0] = np.clip(z, -FARTHEST, FARTHEST)
        return
    edges = np.array(feature.edges)
    pieces = max(len(edges) - 1, 0)
    for t in range(pieces):
        # Clipped first: beyond a piece of denormal width the quotient overflows.
        within = np.clip(x, edges[t], edges[t + 1])
        out[:, t] = (within - edges[t]) / (edges[t + 1] - edges[t])
    for i, spike in enumerate(feature.spikes):
        # Spikes are values of train, read from the same texts: equality is exact.
        out[:, pieces + i] = x == spike


def _encode_levels(
    feature: CategoricalFeature, column: pa.ChunkedArray, out: NDArray[np.float32]
) -> None:
    """Columns: own levels, then "(other)", missing and frequency where they exist."""
    texts = pc.cast(column, pa.string())
    coded = pc.dictionary_encode(texts, null_encoding="encode").combine_chunks()
    if isinstance(coded, pa.ChunkedArray):
        # No rows: an array without a chunk stays one.
        return
    levels = coded.dictionary.to_pylist()
    codes = coded.indices.to_numpy()
    own = {level: i for i, level in enumerate(feature.levels)}
    no_column = -1
    other = len(own) if feature.pooled else no_column
    # Missing where train had none: as a level that was never seen.
    absent = len(own) + feature.pooled if feature.has_missing else other
    target = np.array(
        [absent if t is None else own.get(t, other) for t in levels], np.int64
    )[codes]
    rows = np.flatnonzero(target >= 0)
    out[rows, target[rows]] = 1.0
    if feature.frequency:
        table = [0.0 if t is None else feature.frequency.get(t, 0.0) for t in levels]
        out[:, -1] = np.array(table)[codes]
