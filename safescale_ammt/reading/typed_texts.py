"""Typed columns as text: what a Parquet file says, as a CSV file would say it."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from safescale_ammt.errors import DataError
from safescale_ammt.reading.number_forms import marked_codes

_CODED = pa.dictionary(pa.int32(), pa.string())
# As the reader gives every column of texts.
_CODES = (_CODED, pa.dictionary(pa.int32(), pa.binary()))
# What Arrow writes in place of a time outside the years 1 to 9999.
_NO_TIME = "<value out of range"


def as_texts(column: pa.ChunkedArray, name: str, origin: str) -> pa.ChunkedArray:
    """Spells a typed column; a NaN is a gap, as CSV writers take it.

    Args:
        column: booleans, numbers, times or texts, or a dictionary of such values.
        name: of the column, for the sentence.
        origin: of the file, for the sentence.

    Returns:
        Dictionary-coded text; null stays null.

    Raises:
        DataError: a value that has no text.
    """
    try:
        if column.type in _CODES:
            # Never written out: a column of one long text would take it in every row.
            return pa.chunked_array([_coded(c) for c in column.chunks], _CODED)
        texts = pa.chunked_array([_texts(c) for c in column.chunks], pa.string())
    except pa.ArrowException:
        # Arrow's own message may quote a value: it is not passed on.
        raise DataError(
            f"Column {name!r} of {origin} holds {column.type}, and a value of it has "
            "no spelling as text; write the column as numbers or text."
        ) from None
    if pa.types.is_timestamp(column.type):
        outside = pc.sum(pc.starts_with(texts, _NO_TIME)).as_py()
        if outside:
            raise DataError(
                f"Column {name!r} of {origin} has {outside} times outside the years "
                "1 to 9999; write them as missing."
            )
    coded, kind = pc.dictionary_encode(texts), column.type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    # A form that the development rows have for texts reads 1.234 as 1,234 perhaps.
    fractions = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return marked_codes(coded) if fractions else coded


def _coded(values: pa.DictionaryArray) -> pa.DictionaryArray:
    """Spells the few distinct values that rows have, in the order of the rows."""
    # A category without a row would be a class or a level without one.
    used = pc.unique(values.indices).drop_null()
    codes = pc.index_in(values.indices, used)
    return pa.DictionaryArray.from_arrays(codes, _texts(values.dictionary.take(used)))


def _texts(values: pa.Array) -> pa.StringArray:
    kind = values.type
    if pa.types.is_dictionary(kind):
        return pc.cast(_coded(values), pa.string())
    if pa.types.is_float16(kind):
        # Arrow spells a half as the double it equals, 0.0999755859375 for 0.1.
        coded = pc.dictionary_encode(pc.cast(values, pa.float32()))
        halves = coded.dictionary.to_numpy().astype(np.float16)
        words = pa.array([None if np.isnan(h) else str(h) for h in halves], pa.string())
        return words.take(coded.indices)
    if pa.types.is_floating(kind):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, kind), values)
    if pa.types.is_timestamp(kind) and kind.tz:
        # The same instants: the zone is how a reader likes to see them.
        values = values.cast(pa.timestamp(kind.unit, "UTC"))
    return pc.cast(values, pa.string())
