"""Codes: a row of a table in tens of bytes, and the model inputs that they stand for.

Every feature, or part of a date, has one code per row: the level's number, or the
number of the piece that a value lies in, or that of its spike; of an image each byte
is one. A value within a piece and the frequency of a level are one float32 beside it.
The inputs of a code are a row of a small table, so that hundreds of floats are there
only while they are read.

Every entry depends on its own row alone, by operations that IEEE 754 rounds
exactly: a row encodes to the same bits in every batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from safescale_ammt.data.feature_codes import (
    Deviation,
    Level,
    LevelNumber,
    Number,
    Numeric,
    Part,
    Pieces,
    date_parts,
    feature_width,
    parts_of,
)
from safescale_ammt.data.pixels import Pixels
from safescale_ammt.data.schema import (
    CategoricalFeature,
    DateFeature,
    ImageFeature,
    Schema,
)
from safescale_ammt.errors import DataError

_ROWS_AT_ONCE = 1 << 16
"""Rows whose codes become inputs together: what is held beside these is bounded."""


def width(schema: Schema, numeric: Numeric = "ple") -> int:
    """Returns the number of model inputs."""
    return sum(feature_width(part, numeric) for part in parts_of(schema))


def encode(
    schema: Schema, features: pa.Table, numeric: Numeric = "ple"
) -> NDArray[Any]:
    """Encodes raw feature columns.

    Args:
        schema: features with the encodings learnt on train.
        features: the schema's feature columns (others are ignored): float64 for
            numeric, string for categorical, timestamp for dates, null for missing.
        numeric: `ple` (piecewise linear), `standard` ((x - mean) / std) or `raw` (the
            numbers themselves, and levels by number).

    Returns:
        float32, of `raw` float64 (n, `width(schema, numeric)`), C-contiguous.

    Raises:
        DataError: a feature column is missing from the table.
    """
    coding = Coding(schema, numeric)
    return coding.inputs(coding.codes(features))


@dataclass(frozen=True)
class Codes:
    """Coded rows.

    Attributes:
        code: unsigned (n, parts), an image having one for each byte.
        value: float32, or float64 of raw numbers (n, parts that have one).
    """

    code: NDArray[Any]
    value: NDArray[Any]

    def __len__(self) -> int:
        return len(self.code)

    def take(self, rows: NDArray[Any]) -> Codes:
        """Returns the rows of row numbers."""
        # Four times as fast as an index in brackets.
        return Codes(self.code.take(rows, 0), self.value.take(rows, 0))

    @classmethod
    def joined(cls, parts: Sequence[Codes]) -> Codes:
        """Returns the rows of several, one after the other."""
        code = np.concatenate([part.code for part in parts])
        return cls(code, np.concatenate([part.value for part in parts]))


class Coding:
    """How the rows of a schema are coded, and what inputs the codes stand for.

    Args:
        schema: features with the encodings learnt on train.
        numeric: how numbers are encoded.

    Attributes:
        width: inputs of a row.
        sizes: codes of each part.
        ladders: the inputs of each number's pieces: ones, a fraction, then zeros.
        paired: pairs of a row.
    """

    def __init__(self, schema: Schema, numeric: Numeric) -> None:
        self._schema = schema
        numbers = {"ple": Pieces, "standard": Deviation, "raw": Number}
        number: Any = numbers[numeric]
        level = LevelNumber if numeric == "raw" else Level
        parts: list[Part] = []
        for part in parts_of(schema):
            if isinstance(part, ImageFeature):
                parts.append(Pixels(part))
            elif isinstance(part, CategoricalFeature):
                parts.append(level(part))
            else:
                parts.append(number(part))
        # A tree cuts between numbers that may differ in their last bits.
        self._floats = np.float64 if numeric == "raw" else np.float32
        self._parts = parts
        ends = np.cumsum([0, *(part.width for part in parts)]).tolist()
        self.width: int = ends[-1]
        self._columns = [slice(*pair) for pair in pairwise(ends)]
        # Which codes are each part's: one, of an image all of its bytes.
        lengths = (p.width if isinstance(p, Pixels) else 1 for p in parts)
        places = np.cumsum([0, *lengths]).tolist()
        self._places = [slice(*pair) for pair in pairwise(places)]
        self._coded = places[-1]
        self._valued = [part.places is not None for part in parts]
        self.sizes = [part.last + 1 for part in parts]
        self._type = np.min_scalar_type(max(self.sizes, default=1) - 1)
        self.ladders = [
            range(columns.start, columns.start + part.pieces)
            for part, columns in zip(parts, self._columns, strict=True)
            if isinstance(part, Pieces) and part.pieces
        ]
        code = np.zeros((0, self._coded), self._type)
        no_rows = Codes(code, np.zeros((0, sum(self._valued)), self._floats))
        self.paired = self.pairs(no_rows)[0].shape[1]

    @property
    def levels(self) -> list[int]:
        """Inputs that hold the code of a level, where levels are numbers."""
        parts = zip(self._parts, self._columns, strict=True)
        return [at.start for part, at in parts if isinstance(part, LevelNumber)]

    def missing(self) -> NDArray[Any]:
        """Returns the inputs (1, width) of a row that lacks every value."""
        kinds = {"numeric": pa.float64(), "categorical": pa.string()}
        columns = {
            # Of an image no pixel is missing, or all are black.
            f.name: pa.array([bytes(f.size)], pa.binary(f.size))
            if isinstance(f, ImageFeature)
            else pa.nulls(1, kinds.get(f.kind, pa.timestamp("us")))
            for f in self._schema.features
        }
        return self.inputs(self.codes(pa.table(columns)))

    def codes(self, features: pa.Table) -> Codes:
        """Codes raw feature columns.

        Raises:
            DataError: a feature column is missing from the table.
        """
        rows = features.num_rows
        code = np.zeros((rows, self._coded), self._type)
        value = np.zeros((rows, sum(self._valued)), self._floats)
        columns, at = columns_of(self._schema, features), 0
        for part, own, column in zip(self._parts, self._places, columns, strict=True):
            found, beside = part.codes(column)
            code[:, own] = found.reshape(rows, own.stop - own.start)
            if part.places is not None:
                value[:, at] = beside
                at += 1
        return Codes(code, value)

    def inputs(self, codes: Codes) -> NDArray[Any]:
        """Returns the inputs that codes stand for (n, width), C-contiguous."""
        out = np.zeros((len(codes), self.width), self._floats)
        for first in range(0, len(codes), _ROWS_AT_ONCE):
            rows = slice(first, first + _ROWS_AT_ONCE)
            values = iter(codes.value[rows].T)
            # Numbers of the flat array: twice as fast as pairs of row and column.
            flat, begins = out[rows].reshape(-1), np.arange(len(out[rows])) * self.width
            for part, columns, own in zip(
                self._parts, self._columns, self._places, strict=True
            ):
                if isinstance(part, Pixels):
                    part.fill(out[rows, columns], codes.code[rows, own])
                    continue
                code = codes.code[rows, own.start]
                if not isinstance(part, Level):
                    out[rows, columns] = part.table.take(code, 0)
                elif part.hot:
                    ones = begins + (columns.start + part.spots.take(code))
                    flat[ones] = part.is_one.take(code)
                if part.places is not None:
                    at = begins + (columns.start + part.places.take(code))
                    flat[at] = next(values)
        return out

    def pairs(self, codes: Codes) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Returns rows as few pairs of a column and a weight, in place of the inputs.

        With T the matrix W whose rows are summed within the pieces of each number,
        from the first one on, x W = sum_j weight_j T[column_j]. Of pieces there are two
        pairs, of a level's or the spikes' indicators one, and one of any other input.

        Returns:
            Columns int32 and weights float32, both (n, m).
        """
        found: list[tuple[NDArray[Any], NDArray[Any]]] = []
        values = iter(codes.value.T)
        for part, columns, own in zip(
            self._parts, self._columns, self._places, strict=True
        ):
            if isinstance(part, Pixels):
                found += part.pairs(codes.code[:, own], columns.start)
                continue
            code = codes.code[:, own.start]
            value = next(values) if part.places is not None else code
            for places, weights in part.pairs(code, value):
                found.append((places + columns.start, weights))
        shape = (len(codes), len(found))
        column, weight = np.empty(shape, np.int32), np.empty(shape, np.float32)
        for j, (places, weights) in enumerate(found):
            column[:, j], weight[:, j] = places, weights
        return column, weight


def columns_of(schema: Schema, features: pa.Table) -> Iterator[pa.ChunkedArray]:
    """Yields the column of each part, in the order of `parts_of`.

    Raises:
        DataError: a feature column is missing from the table.
    """
    for feature in schema.features:
        if (name := feature.name) not in features.column_names:
            raise DataError(f"The rows have no column {name!r}, which the model needs.")
        if isinstance(feature, DateFeature):
            columns = date_parts(features[name])
            yield from (columns[part.name] for part in feature.parts)
        else:
            yield features[name]
