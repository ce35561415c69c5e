"""Feature codes: what one column of a table, or a part of its dates, is coded as.

Numbers follow Gorishniy, Rubachev & Babenko, "On Embeddings for Numerical
Features in Tabular Deep Learning" (NeurIPS 2022), eq. 1, with quantile edges:
component t of x is clip((x - b_t) / (b_{t+1} - b_t), 0, 1). Unlike there the two
outer components are clipped too, so that an outlier cannot leave the range that
was trained on.

A date is its parts: days since 1970-01-01, year and hour as numbers, month and
weekday as levels. An image has a code for each of its bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from safescale_ammt.data.pixels import Pixels
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    ImageFeature,
    NumericFeature,
    Schema,
)

Numeric = Literal["ple", "standard", "raw"]
Floats = NDArray[np.float64]
FARTHEST = 1e6
"""Most standard deviations from the mean that a standardised number says."""
Coded = NumericFeature | CategoricalFeature | ImageFeature
"""What has codes of its own."""
_DAY = 86_400e6
"""Microseconds, the unit of times in a split."""


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


def parts_of(schema: Schema) -> Iterator[Coded]:
    """Yields what has a code of its own, in the order of the inputs."""
    for feature in schema.features:
        if isinstance(feature, DateFeature):
            yield from feature.parts
        else:
            yield feature


def feature_width(feature: Coded, numeric: Numeric) -> int:
    """Returns the number of inputs of a feature, or of a part of a date."""
    if isinstance(feature, ImageFeature):
        return feature.size
    if numeric == "raw":
        return 1 + (isinstance(feature, CategoricalFeature) and bool(feature.frequency))
    if isinstance(feature, CategoricalFeature):
        extra = feature.has_missing + feature.pooled + bool(feature.frequency)
        return len(feature.levels) + extra
    if numeric == "standard":
        return 1 + feature.has_missing
    pieces = max(len(feature.edges) - 1, 0)
    return pieces + len(feature.spikes) + feature.has_missing


class Pieces:
    """A number: its piece and how far into it, its spike, or that it is missing.

    Attributes:
        width: inputs.
        pieces: of the number, in the first inputs.
        last: the greatest code.
        home: the piece of each code (codes,).
        table: the inputs of each code, without the value (codes, width).
        places: at which input each code has its value (codes,); None if it has none.
    """

    def __init__(self, feature: NumericFeature) -> None:
        self._feature = feature
        edges, spikes = np.array(feature.edges), np.array(feature.spikes)
        self._low, self._high = edges[:-1], edges[1:]
        self.pieces = pieces = len(self._low)
        self._codes = max(pieces, 1)
        others = [*spikes, *[feature.median] * feature.has_missing]
        self.home = np.append(np.arange(self._codes), self._piece(np.array(others)))
        # What lies below a value's piece is full; `codes` says the rest.
        with np.errstate(over="ignore", invalid="ignore"):
            full = (self._high - self._low) / (self._high - self._low)
        self.table = np.zeros(
            (len(self.home), feature_width(feature, "ple")), np.float32
        )
        self.table[:, :pieces] = np.where(
            np.arange(pieces) < self.home[:, None], full, 0
        )
        for i, spike in enumerate(spikes):
            self.table[self._codes + i, pieces + i] = 1
            self.table[self._codes + len(spikes) :, pieces + i] = spike == others[-1]
        if feature.has_missing:
            self.table[-1, -1] = 1
        self.places = self.home if pieces else None
        self.width, self.last = self.table.shape[1], len(self.table) - 1

    def _piece(self, x: Floats) -> NDArray[np.int64]:
        # A value on an edge begins a piece; the outer ones have what lies beyond them.
        return np.searchsorted(self._high[:-1], x, side="right")

    def codes(self, column: pa.ChunkedArray) -> tuple[NDArray[Any], Floats]:
        """Returns each row's code and its value (n,)."""
        feature = self._feature
        # The median keeps the row inside the range that was trained on; the indicator
        # tells the net that it is no measurement.
        x, absent = numbers(column, feature.median)
        piece = self._piece(x)
        code = piece.copy()
        for i, spike in enumerate(feature.spikes):
            # Spikes are values of train, read from the same texts: equality is exact.
            code[x == spike] = self._codes + i
        if feature.has_missing:
            code[absent] = self.last
        if self.places is None:
            return code, x
        low, high = self._low[piece], self._high[piece]
        # Clipped first: beyond a piece of denormal width the quotient overflows.
        with np.errstate(over="ignore", invalid="ignore"):
            return code, (np.clip(x, low, high) - low) / (high - low)

    def pairs(
        self, code: NDArray[Any], value: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yields columns and weights (n,): `Coding.pairs`."""
        pieces, spikes = self.pieces, len(self._feature.spikes)
        if pieces:
            # Whole pieces; in the next one there is the value's fraction.
            whole = self.home.take(code) + (value == 1)
            within = np.where(value == 1, 0, value)
            yield np.minimum(whole, pieces - 1), within
            yield np.maximum(whole - 1, 0), (1 - within) * (whole > 0)
        if spikes:
            ones = self.table[:, pieces : pieces + spikes]
            yield pieces + ones.argmax(1).take(code), ones.max(1).take(code)
        if self._feature.has_missing:
            last = np.full(len(code), self.width - 1)
            yield last, self.table[:, -1].take(code)


class Deviation:
    """A number as its distance from the mean, and whether it is missing."""

    def __init__(self, feature: NumericFeature) -> None:
        self._feature = feature
        self.table = np.zeros([1 + feature.has_missing] * 2, np.float32)
        self.table[1:, 1:] = 1
        self.places = np.zeros(len(self.table), np.int64)
        self.width = len(self.table)
        self.last = self.width - 1

    def codes(self, column: pa.ChunkedArray) -> tuple[NDArray[Any], Floats]:
        """Returns each row's code and its value (n,)."""
        feature = self._feature
        x, absent = numbers(column, feature.median)
        # A row of train lies within sqrt(n) deviations; one far beyond all of them
        # would be infinite in float32, and so would what the network answers.
        with np.errstate(over="ignore"):
            z = (x - feature.mean) / feature.std
        return absent & feature.has_missing, np.clip(z, -FARTHEST, FARTHEST)

    def pairs(
        self, code: NDArray[Any], value: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yields columns and weights (n,): `Coding.pairs`."""
        yield np.zeros(len(code), np.int64), value
        if self._feature.has_missing:
            yield np.ones(len(code), np.int64), code


class Level:
    """A level: an own one, "(other)", missing or none, and how frequent it was.

    Attributes:
        width: inputs.
        hot: indicators, of which a code sets one or none.
        last: the greatest code, that of none.
        spots: the indicator of each code, any for the code of none (codes,).
        is_one: what it is set to (codes,).
        places: at which input each code has its frequency (codes,), or None.
    """

    def __init__(self, feature: CategoricalFeature) -> None:
        self._feature = feature
        self.width = feature_width(feature, "ple")
        self.hot = self.last = self.width - bool(feature.frequency)
        # The last code has no indicator: unseen where nothing was pooled.
        self.spots = np.append(np.arange(self.hot), 0)
        self.is_one = np.append(np.ones(self.hot, np.float32), np.float32(0))
        own = len(feature.levels)
        self._own = {level: i for i, level in enumerate(feature.levels)}
        self._other = own if feature.pooled else self.hot
        # Missing where train had none: as a level that was never seen.
        self._absent = own + feature.pooled if feature.has_missing else self._other
        at_the_end = np.full(self.hot + 1, self.width - 1)
        self.places = at_the_end if feature.frequency else None

    def codes(self, column: pa.ChunkedArray) -> tuple[NDArray[Any], Floats]:
        """Returns each row's code and its frequency (n,)."""
        if not pa.types.is_dictionary(column.type):
            column = pc.dictionary_encode(pc.cast(column, pa.string()))
        if isinstance(column, pa.ChunkedArray):
            column = column.unify_dictionaries().combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            # No rows: an array without a chunk stays one.
            return np.zeros(0, np.int64), np.zeros(0)
        # Absent ones stand behind the last text.
        texts = [*pc.cast(column.dictionary, pa.string()).to_pylist(), None]
        at = pc.fill_null(pc.cast(column.indices, pa.int64()), len(texts) - 1)
        own, other, frequency = self._own, self._other, self._feature.frequency
        code = [self._absent if t is None else own.get(t, other) for t in texts]
        share = [0.0 if t is None else frequency.get(t, 0.0) for t in texts]
        index = at.to_numpy()
        return np.array(code)[index], np.array(share)[index]

    def pairs(
        self, code: NDArray[Any], value: NDArray[np.float32]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yields columns and weights (n,): `Coding.pairs`."""
        if self.hot:
            yield self.spots.take(code), self.is_one.take(code)
        if self._feature.frequency:
            yield np.full(len(code), self.width - 1), value


class Number:
    """A number as it stands in the table, in double precision, for trees to cut.

    Where it is missing it is NaN, of which trees learn where it goes; where train has
    none missing, nothing was learnt and it is the median.
    """

    def __init__(self, feature: NumericFeature) -> None:
        self._absent = np.nan if feature.has_missing else feature.median
        self.table = np.zeros((1, 1), np.float32)
        self.places = np.zeros(1, np.int64)
        self.width, self.last = 1, 0

    def codes(self, column: pa.ChunkedArray) -> tuple[NDArray[Any], Floats]:
        """Returns a code that says nothing, and each row's value (n,)."""
        x, _ = numbers(column, self._absent)
        return np.zeros(len(x), np.int64), x

    def pairs(
        self, code: NDArray[Any], value: NDArray[Any]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yields columns and weights (n,): `Coding.pairs`."""
        yield np.zeros(len(code), np.int64), value


class LevelNumber(Level):
    """A level as one number, its code, for trees to put into sets."""

    def __init__(self, feature: CategoricalFeature) -> None:
        super().__init__(feature)
        codes = self.last + 1
        self.width, self.hot = feature_width(feature, "raw"), 1
        self.spots = np.zeros(codes, np.int64)
        self.is_one = np.arange(codes, dtype=np.float32)
        self.places = np.ones(codes, np.int64) if feature.frequency else None


Part = Pieces | Deviation | Level | Number | Pixels


def numbers(column: pa.ChunkedArray, median: float) -> tuple[Floats, NDArray[np.bool_]]:
    """Returns a column's numbers, the median where they are missing, and where (n,)."""
    x = pc.cast(column, pa.float64()).to_numpy().astype(np.float64)
    absent = np.isnan(x)
    return np.where(absent, median, x), absent
